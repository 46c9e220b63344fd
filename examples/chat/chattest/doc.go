// Package chattest tries the whole chat: nodes behind HAProxy, workers of the pipeline, pages in a headless
// Chromium, and the classic tutorial's programs.
//
// It holds tests alone. What takes longer runs in examples/chat/test, not in go test ./...
package chattest
