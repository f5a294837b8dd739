/** The Android example's reader and spam filter at work: `Filter MODEL MESSAGES.tsv FOLDER`. */
import java.io.File
import org.electret.example.Reader
import org.electret.example.SpamFilter
import uniffi.electret.ElectretException
import uniffi.electret.Model

fun main(arguments: Array<String>) {
    val (path, messages, folder) = arguments
    val model = Model.open(path)
    val text = "🦊 He opened the door and walked table the room."
    check(Reader(model).suspects(text).any { text.substring(it) == "table" })
    check(Reader(model).suspects("").isEmpty())

    val filter = SpamFilter(model, File(folder))
    check(filter.spam("free prize! call now") == null)
    val rows = File(messages).readLines().drop(1).map { it.split('\t') }
    for ((label, message) in rows) filter.swiped(message, label == "spam")
    try {
        filter.learn { done, _ -> done < 3 }
        error("a round that was to stop went on")
    } catch (_: ElectretException.Cancelled) {
    }
    check(filter.spam("free prize! call now") == null)
    filter.learn()
    val right = rows.count { (label, message) -> (filter.spam(message)!! > 0.5f) == (label == "spam") }
    check(right >= rows.size * 9 / 10) { "$right of ${rows.size}" }

    val again = SpamFilter(model, File(folder))
    check(again.spam("free prize! call now") == filter.spam("free prize! call now"))

    val nano = SpamFilter(Model.open("models/electret-nano.electret"), File(folder))
    check(nano.spam("free prize! call now") == null)
    nano.learn()
    check(nano.spam("free prize! call now") != null)
    println("the example's filter sorts $right of ${rows.size} as it was taught")
}
