import Electret
import SwiftUI

@main
struct ExampleApp: App {
    /// The model is mapped where the app lies.
    private let model: Model
    private let filter: SpamFilter

    init() {
        do {
            guard let file = Bundle.main.url(forResource: "electret-tiny", withExtension: "electret") else {
                fatalError("electret-tiny.electret is not in the app")
            }
            model = try Model.open(path: file.path)
            filter = try SpamFilter(model: model, folder: .applicationSupportDirectory.appending(path: "spam"))
        } catch {
            fatalError(error.localizedDescription)
        }
    }

    var body: some Scene {
        WindowGroup {
            VStack(alignment: .leading, spacing: 16) {
                ReadAlong(reader: Reader(model: model))
                Inbox(filter: filter, messages: Self.messages)
            }
            .padding()
        }
    }

    private static let messages: [String] = {
        guard let file = Bundle.main.url(forResource: "messages", withExtension: "tsv"),
              let text = try? String(contentsOf: file, encoding: .utf8) else { return [] }
        return text.split(separator: "\n").dropFirst().compactMap { $0.split(separator: "\t").last.map(String.init) }
    }()
}
