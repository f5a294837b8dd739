/** Detects, learns and classifies through the Kotlin bindings, and prints every bit: `Agree MODEL TRAIN.tsv FOLDER`. */
import java.io.File
import uniffi.electret.*

const val TEXT = "He opened the door and walked table the room."
const val QUESTION = "free prize! call now"
val LABELS = listOf("ham", "spam")

class Watch : Progress {
    var steps = 0u

    override fun step(done: UInt, of: UInt, loss: Float): Boolean {
        steps = done
        return done <= of && loss >= 0
    }
}

fun bits(value: Float) = "%08x".format(value.toRawBits())

fun main(arguments: Array<String>) {
    val (path, train, folder) = arguments
    Model.open(path).use { model ->
        for (found in model.detect(TEXT)) {
            println("detect ${found.span.start} ${found.span.end} ${bits(found.replaced)}")
        }
        val examples = File(train).readLines().drop(1).map { line ->
            val (label, text) = line.split('\t')
            Example(text, Truth.Label(label))
        }
        val watch = Watch()
        Tuner.inFolder(model, Lesson(kind = "classify", labels = LABELS), folder).use { tuner ->
            check(tuner.learnWatched(examples, 2u, watch).steps == watch.steps)
            tuner.save()
        }
        val mine = checkNotNull(model.withAdapterOf(folder))
        val scores = mine.classify(QUESTION).associate { it.label to it.probability }
        for (label in LABELS) println("classify $label ${bits(scores.getValue(label))}")
    }

    val gone = Model.open(path)
    gone.destroy()
    try {
        gone.detect(TEXT)
        error("a destroyed model answered")
    } catch (_: IllegalStateException) {
    }
    try {
        Model.open("nowhere.electret")
        error("a file that is not there was opened")
    } catch (refused: ElectretException.File) {
        check(refused.message!!.startsWith("nowhere.electret: "))
    }
}
