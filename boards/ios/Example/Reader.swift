import Electret
import Foundation

/// Reads a text along and finds the words that do not belong.
struct Reader: Sendable {
    private let model: Model
    private let threshold: Float = 0.5

    init(model: Model) {
        self.model = model.truncating()
    }

    /// Where they stand, in the UTF-16 units in which `NSRange` counts; nothing in an empty text.
    func suspects(in text: String) -> [NSRange] {
        let found = (try? model.detect(text: text)) ?? []
        return found.filter { $0.replaced >= threshold }.map {
            NSRange(location: Int($0.span.utf16Start), length: Int($0.span.utf16End - $0.span.utf16Start))
        }
    }
}
