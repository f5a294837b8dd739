plugins {
    alias(libs.plugins.android.application)
    alias(libs.plugins.kotlin.compose)
}

android {
    namespace = "org.electret.example"
    compileSdk { version = release(36) }

    defaultConfig {
        applicationId = "org.electret.example"
        minSdk = 24
        targetSdk = 36
        versionCode = 1
        versionName = "0.1.0"
    }

    // electret-tiny and the sample messages come with the app.
    sourceSets.named("main") {
        assets.directories.add("build/assets")
    }

    buildFeatures { compose = true }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
}

val assets = tasks.register<Copy>("copyAssets") {
    from("../../../models/electret-tiny.electret", "../../../examples/data/messages.tsv")
    into(layout.buildDirectory.dir("assets"))
}
tasks.named("preBuild") { dependsOn(assets) }

dependencies {
    implementation(project(":electret"))
    implementation(platform(libs.compose.bom))
    implementation(libs.activity.compose)
    implementation(libs.compose.material3)
    implementation(libs.compose.ui)
    implementation(libs.coroutines)
}
