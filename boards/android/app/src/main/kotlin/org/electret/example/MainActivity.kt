package org.electret.example

import android.os.Bundle
import androidx.activity.ComponentActivity
import androidx.activity.compose.setContent
import androidx.activity.enableEdgeToEdge
import androidx.compose.foundation.layout.Column
import androidx.compose.foundation.layout.fillMaxWidth
import androidx.compose.foundation.layout.padding
import androidx.compose.foundation.lazy.LazyColumn
import androidx.compose.foundation.lazy.items
import androidx.compose.material3.ListItem
import androidx.compose.material3.MaterialTheme
import androidx.compose.material3.OutlinedTextField
import androidx.compose.material3.Scaffold
import androidx.compose.material3.SwipeToDismissBox
import androidx.compose.material3.SwipeToDismissBoxValue
import androidx.compose.material3.Text
import androidx.compose.material3.rememberSwipeToDismissBoxState
import androidx.compose.runtime.Composable
import androidx.compose.runtime.LaunchedEffect
import androidx.compose.runtime.getValue
import androidx.compose.runtime.mutableStateListOf
import androidx.compose.runtime.mutableStateOf
import androidx.compose.runtime.remember
import androidx.compose.runtime.rememberCoroutineScope
import androidx.compose.runtime.setValue
import androidx.compose.ui.Modifier
import androidx.compose.ui.res.stringResource
import androidx.compose.ui.text.AnnotatedString
import androidx.compose.ui.text.SpanStyle
import androidx.compose.ui.text.buildAnnotatedString
import androidx.compose.ui.text.input.OffsetMapping
import androidx.compose.ui.text.input.TransformedText
import androidx.compose.ui.text.input.VisualTransformation
import androidx.compose.ui.text.style.TextDecoration
import androidx.compose.ui.unit.dp
import java.io.File
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.delay
import kotlinx.coroutines.launch
import kotlinx.coroutines.sync.Mutex
import kotlinx.coroutines.sync.withLock
import kotlinx.coroutines.withContext
import uniffi.electret.ElectretException
import uniffi.electret.Model

/** Swipes after which the filter learns. */
private const val ROUND = 8

class MainActivity : ComponentActivity() {
    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        enableEdgeToEdge()
        val model = Model.open(modelFile().path)
        val reader = Reader(model)
        val filter = SpamFilter(model, File(filesDir, "spam"))
        val messages = assets.open("messages.tsv").bufferedReader().readLines().drop(1).map { it.substringAfter('\t') }
        setContent {
            MaterialTheme {
                Scaffold { insets ->
                    Column(Modifier.padding(insets).padding(16.dp)) {
                        ReadAlong(reader)
                        Inbox(filter, messages)
                    }
                }
            }
        }
    }

    /** The model as a file that can be mapped: copied out of the app once, and put in its place by renaming. */
    private fun modelFile(): File {
        val file = File(filesDir, "electret-tiny.electret")
        if (!file.exists()) {
            val part = File(filesDir, "electret-tiny.part")
            assets.open(file.name).use { from -> part.outputStream().use { from.copyTo(it) } }
            check(part.renameTo(file)) { "${file.path} cannot be written" }
        }
        return file
    }
}

/** A text field that underlines the words that do not belong. */
@Composable
private fun ReadAlong(reader: Reader) {
    var text by remember { mutableStateOf("He opened the door and walked table the room.") }
    var read by remember { mutableStateOf(text to emptyList<IntRange>()) }
    LaunchedEffect(text) {
        delay(50) // a pause in typing
        read = text to withContext(Dispatchers.Default) { reader.suspects(text) }
    }
    val suspects = if (read.first == text) read.second else emptyList()
    OutlinedTextField(
        value = text,
        onValueChange = { text = it },
        label = { Text(stringResource(R.string.read_title)) },
        visualTransformation = Underlined(suspects, SpanStyle(MaterialTheme.colorScheme.error, textDecoration = TextDecoration.Underline)),
        modifier = Modifier.fillMaxWidth(),
    )
}

private class Underlined(private val ranges: List<IntRange>, private val style: SpanStyle) : VisualTransformation {
    override fun filter(text: AnnotatedString): TransformedText {
        val underlined = buildAnnotatedString {
            append(text)
            for (range in ranges) addStyle(style, range.first, range.last + 1)
        }
        return TransformedText(underlined, OffsetMapping.Identity)
    }
}

/** Messages, the likeliest spam last, that teach by being swiped. */
@Composable
private fun Inbox(filter: SpamFilter, all: List<String>) {
    val scope = rememberCoroutineScope()
    val learning = remember { Mutex() }
    val messages = remember { mutableStateListOf(*all.shuffled().toTypedArray()) }
    var scores by remember { mutableStateOf(emptyMap<String, Float>()) }
    var status by remember { mutableStateOf<Pair<Int, Int>?>(null) }
    var trouble by remember { mutableStateOf<String?>(null) }
    var swipes by remember { mutableStateOf(0) }

    suspend fun score() {
        scores = withContext(Dispatchers.Default) { all.mapNotNull { text -> filter.spam(text)?.let { text to it } }.toMap() }
    }

    fun swiped(message: String, isSpam: Boolean) {
        messages.remove(message)
        swipes += 1
        val learns = swipes % ROUND == 0
        scope.launch {
            learning.withLock {
                withContext(Dispatchers.Default) {
                    filter.swiped(message, isSpam)
                    try {
                        if (learns) filter.learn { done, of -> true.also { status = done to of } }
                        trouble = null
                    } catch (error: ElectretException) {
                        // What was known before stays.
                        trouble = error.message
                    }
                }
                status = null
                if (learns) score()
            }
        }
    }

    LaunchedEffect(Unit) { learning.withLock { score() } }
    Text(
        status?.let { (done, of) -> stringResource(R.string.learning, done, of) }
            ?: trouble ?: stringResource(R.string.inbox_title),
        Modifier.padding(vertical = 16.dp),
        style = MaterialTheme.typography.titleMedium,
    )
    LazyColumn {
        items(messages.sortedBy { scores[it] ?: 0f }, key = { it }) { message ->
            val state = rememberSwipeToDismissBoxState()
            SwipeToDismissBox(
                state = state,
                backgroundContent = {
                    val spam = state.dismissDirection == SwipeToDismissBoxValue.StartToEnd
                    Text(stringResource(if (spam) R.string.spam else R.string.not_spam), Modifier.padding(16.dp))
                },
                onDismiss = { swiped(message, it == SwipeToDismissBoxValue.StartToEnd) },
            ) {
                ListItem(
                    headlineContent = { Text(message) },
                    supportingContent = scores[message]?.let { spam -> { Text("${(spam * 100).toInt()} % spam") } },
                )
            }
        }
    }
}
