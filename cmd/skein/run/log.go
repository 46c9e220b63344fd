package run

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"

	"github.com/skein-mqtt/skein/cmd/skein/config"
	"github.com/skein-mqtt/skein/node/admin"
	"github.com/skein-mqtt/skein/node/ring"
)

// newLogger writes one line a record, as text or JSON, and keeps the last in lines if that is not nil.
// level may be changed later. config.Validate knows the levels.
func newLogger(w io.Writer, c config.Log, level *slog.LevelVar, lines *ring.Ring[admin.Line]) *slog.Logger {
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level.Set(slog.LevelInfo)
	}
	o := &slog.HandlerOptions{Level: level}
	var h slog.Handler = slog.NewTextHandler(w, o)
	if c.Format == "json" {
		h = slog.NewJSONHandler(w, o)
	}
	if lines != nil {
		h = newKeeper(h, level, lines)
	}
	return slog.New(h)
}

// keeper is a handler that remembers what another one writes.
type keeper struct {
	next  slog.Handler
	text  slog.Handler // into last
	last  *lastLine
	lines *ring.Ring[admin.Line]
}

// lastLine is what a text handler has just written.
type lastLine struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func newKeeper(next slog.Handler, level slog.Leveler, lines *ring.Ring[admin.Line]) *keeper {
	last := &lastLine{}
	return &keeper{next: next, last: last, lines: lines, text: slog.NewTextHandler(&last.buf, &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
				return slog.Attr{}
			}
			return a
		},
	})}
}

// Enabled implements slog.Handler.
func (k *keeper) Enabled(ctx context.Context, l slog.Level) bool { return k.next.Enabled(ctx, l) }

// Handle implements slog.Handler.
func (k *keeper) Handle(ctx context.Context, r slog.Record) error {
	k.last.mu.Lock()
	k.last.buf.Reset()
	err := k.text.Handle(ctx, r)
	line := strings.TrimSuffix(k.last.buf.String(), "\n")
	k.last.mu.Unlock()
	if err == nil {
		k.lines.Add(admin.Line{Time: r.Time.UnixMilli(), Level: r.Level, Text: line})
	}
	return k.next.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (k *keeper) WithAttrs(a []slog.Attr) slog.Handler {
	return &keeper{k.next.WithAttrs(a), k.text.WithAttrs(a), k.last, k.lines}
}

// WithGroup implements slog.Handler.
func (k *keeper) WithGroup(name string) slog.Handler {
	return &keeper{k.next.WithGroup(name), k.text.WithGroup(name), k.last, k.lines}
}
