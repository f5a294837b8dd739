import SwiftUI

/// A text field that underlines the words that do not belong.
struct ReadAlong: View {
    let reader: Reader
    @State private var text = "He opened the door and walked table the room."
    @State private var suspects: [NSRange] = []

    var body: some View {
        Text("Which word does not belong?").font(.headline)
        UnderliningTextView(text: $text, underlined: suspects)
            .frame(height: 120)
            .overlay(RoundedRectangle(cornerRadius: 8).stroke(.secondary))
            .task(id: text) {
                try? await Task.sleep(for: .milliseconds(50)) // a pause in typing
                let (reader, text) = (reader, text)
                let found = await Task.detached { reader.suspects(in: text) }.value
                if !Task.isCancelled { suspects = found }
            }
    }
}

private struct UnderliningTextView: UIViewRepresentable {
    @Binding var text: String
    let underlined: [NSRange]

    func makeUIView(context: Context) -> UITextView {
        let view = UITextView()
        view.font = .preferredFont(forTextStyle: .body)
        view.adjustsFontForContentSizeCategory = true
        view.backgroundColor = .clear
        view.delegate = context.coordinator
        return view
    }

    func updateUIView(_ view: UITextView, context: Context) {
        if view.text != text { view.text = text }
        let storage = view.textStorage
        let all = NSRange(location: 0, length: storage.length)
        storage.removeAttribute(.underlineStyle, range: all)
        for range in underlined where NSMaxRange(range) <= storage.length {
            storage.addAttributes([.underlineStyle: NSUnderlineStyle.thick.rawValue, .underlineColor: UIColor.systemRed], range: range)
        }
    }

    func makeCoordinator() -> Coordinator { Coordinator(text: $text) }

    final class Coordinator: NSObject, UITextViewDelegate {
        private let text: Binding<String>

        init(text: Binding<String>) { self.text = text }

        func textViewDidChange(_ view: UITextView) { text.wrappedValue = view.text }
    }
}
