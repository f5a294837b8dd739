import Electret
import Foundation

/// Learns from swipes what is spam. What it learned, and the messages that it learned from, are kept in a folder, and
/// outlive the app whenever it is killed.
actor SpamFilter {
    private static let labels = ["ham", "spam"]
    private static let epochs: UInt32 = 20

    private let model: Model
    private let tuner: Tuner
    private let swipes: URL
    private var mine: Model?

    init(model: Model, folder: URL) throws {
        self.model = model
        let learned = folder.appending(path: "learned")
        tuner = try Self.tuner(model: model, folder: learned)
        mine = try model.withAdapterOf(folder: learned.path)?.truncating()
        swipes = folder.appending(path: "swipes.json")
    }

    /// What was learned on another model than the app has by now is learned anew, from the swipes.
    private static func tuner(model: Model, folder: URL) throws -> Tuner {
        let lesson = Lesson(kind: "classify", labels: labels)
        do {
            return try Tuner.inFolder(model: model, lesson: lesson, folder: folder.path)
        } catch ElectretError.Adapter {
            try FileManager.default.removeItem(at: folder)
            return try Tuner.inFolder(model: model, lesson: lesson, folder: folder.path)
        }
    }

    /// How likely a message is to be spam; nil before anything was learned.
    func spam(_ message: String) throws -> Float? {
        try mine?.classify(text: message).first { $0.label == "spam" }?.probability
    }

    /// Remembers what was said of a message, for the next `learn`.
    func swiped(_ message: String, isSpam: Bool) throws {
        var all = try remembered()
        all.append(Swipe(message: message, label: Self.labels[isSpam ? 1 : 0]))
        try JSONEncoder().encode(all).write(to: swipes, options: .atomic)
    }

    /// Learns from all that was ever swiped, going on from what it knows. `watch` hears of each step and may stop it.
    func learn(watch: @escaping @Sendable (_ done: Int, _ of: Int) -> Bool = { _, _ in true }) throws {
        let examples = try remembered().map { Example(text: $0.message, truth: .label(label: $0.label)) }
        _ = try tuner.learnWatched(examples: examples, epochs: Self.epochs, progress: Watch(watch))
        try tuner.save()
        mine = try model.withAdapter(adapter: tuner.adapter()).truncating()
    }

    private func remembered() throws -> [Swipe] {
        guard FileManager.default.fileExists(atPath: swipes.path) else { return [] }
        return try JSONDecoder().decode([Swipe].self, from: Data(contentsOf: swipes))
    }
}

private struct Swipe: Codable {
    let message: String
    let label: String
}

private final class Watch: Progress {
    private let watch: @Sendable (Int, Int) -> Bool

    init(_ watch: @escaping @Sendable (Int, Int) -> Bool) { self.watch = watch }

    func step(done: UInt32, of: UInt32, loss: Float) -> Bool { watch(Int(done), Int(of)) }
}
