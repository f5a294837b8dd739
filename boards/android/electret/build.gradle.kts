// The AAR: `build-library.sh` puts the native libraries and the Kotlin source into build/rust.

plugins {
    alias(libs.plugins.android.library)
}

android {
    namespace = "org.electret"
    compileSdk { version = release(36) }

    defaultConfig {
        minSdk = 24
        consumerProguardFiles("consumer-rules.pro")
    }

    sourceSets.named("main") {
        kotlin.directories.add("build/rust/kotlin")
        jniLibs.directories.add("build/rust/jniLibs")
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
}

dependencies {
    api("net.java.dev.jna:jna:${libs.versions.jna.get()}@aar")
}
