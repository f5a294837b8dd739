// swift-tools-version: 6.0
import PackageDescription

// `build-xcframework.sh` makes Electret.xcframework and Sources/Electret/electret.swift.
let package = Package(
    name: "Electret",
    platforms: [.iOS(.v16), .macOS(.v13)],
    products: [.library(name: "Electret", targets: ["Electret"])],
    targets: [
        .binaryTarget(name: "electretFFI", path: "Electret.xcframework"),
        .target(name: "Electret", dependencies: ["electretFFI"], path: "Sources/Electret"),
    ],
    swiftLanguageModes: [.v5]
)
