package org.electret.example

import java.io.File
import uniffi.electret.ElectretException
import uniffi.electret.Example
import uniffi.electret.Lesson
import uniffi.electret.Model
import uniffi.electret.Progress
import uniffi.electret.Truth
import uniffi.electret.Tuner

/**
 * Learns from swipes what is spam. What it learned, and the messages that it learned from, are kept in [folder], and
 * outlive the app whenever it is killed. Calls are for a background thread, one at a time.
 */
class SpamFilter(private val model: Model, folder: File) {
    private val learned = File(folder, "learned")
    private val tuner = try {
        tuner()
    } catch (_: ElectretException.Adapter) {
        // On another model than the app has by now: it is learned anew, from the swipes.
        learned.deleteRecursively()
        tuner()
    }
    private val swipes = File(folder, "swipes.tsv")
    private var mine = model.withAdapterOf(learned.path)?.truncating()

    private fun tuner() = Tuner.inFolder(model, Lesson(kind = "classify", labels = LABELS), learned.path)

    /** How likely a message is to be spam; null before anything was learned. */
    fun spam(message: String): Float? =
        mine?.classify(message)?.first { it.label == SPAM }?.probability

    /** Remembers what was said of a message, for the next [learn]. */
    fun swiped(message: String, isSpam: Boolean) {
        val line = message.replace(Regex("\\s+"), " ").trim()
        if (line.isNotEmpty()) swipes.appendText("${if (isSpam) SPAM else HAM}\t$line\n")
    }

    /** Learns from all that was ever swiped, going on from what it knows. [watch] hears of each step and may stop it. */
    fun learn(watch: (done: Int, of: Int) -> Boolean = { _, _ -> true }) {
        val examples = swipes.readLines().map { line ->
            val (label, text) = line.split('\t', limit = 2)
            Example(text, Truth.Label(label))
        }
        val progress = object : Progress {
            override fun step(done: UInt, of: UInt, loss: Float) = watch(done.toInt(), of.toInt())
        }
        tuner.learnWatched(examples, EPOCHS, progress)
        tuner.save()
        mine?.close()
        mine = model.withAdapter(tuner.adapter()).truncating()
    }

    /** Stops a [learn] that another thread is in; what was known before it stays. */
    fun stop() = tuner.cancel()

    private companion object {
        const val SPAM = "spam"
        const val HAM = "ham"
        const val EPOCHS = 20u
        val LABELS = listOf(HAM, SPAM)
    }
}
