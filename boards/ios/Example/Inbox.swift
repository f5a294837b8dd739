import SwiftUI

/// Messages, the likeliest spam last, that teach by being swiped.
struct Inbox: View {
    /// Swipes after which the filter learns.
    private static let round = 8

    let filter: SpamFilter
    @State var messages: [String]
    @State private var scores: [String: Float] = [:]
    @State private var swipes = 0
    @State private var status: String?

    var body: some View {
        Text(status ?? "Swipe right what is spam, left what is not").font(.headline)
        List(messages.sorted { scores[$0, default: 0] < scores[$1, default: 0] }, id: \.self) { message in
            VStack(alignment: .leading) {
                Text(message)
                if let spam = scores[message] {
                    Text("\(Int(spam * 100)) % spam").font(.caption).foregroundStyle(.secondary)
                }
            }
            .swipeActions(edge: .leading) { Button("Spam") { swiped(message, isSpam: true) }.tint(.red) }
            .swipeActions(edge: .trailing) { Button("Not spam") { swiped(message, isSpam: false) }.tint(.green) }
        }
        .listStyle(.plain)
        .task { await score() }
    }

    private func swiped(_ message: String, isSpam: Bool) {
        messages.removeAll { $0 == message }
        swipes += 1
        let learns = swipes.isMultiple(of: Self.round)
        Task {
            do {
                try await filter.swiped(message, isSpam: isSpam)
                guard learns else { return }
                try await filter.learn { done, of in
                    Task { @MainActor in status = done < of ? "Learning, step \(done) of \(of)" : nil }
                    return true
                }
                await score()
            } catch {
                status = error.localizedDescription
            }
        }
    }

    private func score() async {
        for message in messages {
            scores[message] = try? await filter.spam(message)
        }
    }
}
