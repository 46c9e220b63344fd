package run

import (
	"io"
	"log/slog"

	"github.com/skein-mqtt/skein/cmd/skein/config"
)

// newLogger writes one line a record, as text or JSON. config.Validate knows the levels.
func newLogger(w io.Writer, c config.Log) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo
	}
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
