package org.electret.example

import uniffi.electret.ElectretException
import uniffi.electret.Model

/** Reads a text along and finds the words that do not belong. */
class Reader(model: Model, private val threshold: Float = 0.5f) {
    private val model = model.truncating()

    /** Where they stand, in the UTF-16 units in which Kotlin counts. */
    fun suspects(text: String): List<IntRange> = try {
        model.detect(text)
            .filter { it.replaced >= threshold }
            .map { it.span.utf16Start.toInt() until it.span.utf16End.toInt() }
    } catch (_: ElectretException.Text) {
        emptyList() // nothing is written yet
    }
}
