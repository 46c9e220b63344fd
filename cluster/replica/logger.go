package replica

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// repeatAfter is how often raft may say the same thing aloud: it repeats itself with every heartbeat
// while another server is away.
const repeatAfter = 10 * time.Second

// raftLogger gives raft's log to slog. What raft calls an error is one of another server or of the
// network, which raft deals with: a warning here. What it calls information is for debugging.
type raftLogger struct {
	hclog.Logger // a null logger, for the rest of the interface
	to           *slog.Logger
	said         *said
}

// said is what was logged lately; raft has some hundred different messages, all of them constants.
type said struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func newRaftLogger(to *slog.Logger) hclog.Logger {
	if to == nil {
		to = slog.New(slog.DiscardHandler)
	}
	return &raftLogger{Logger: hclog.NewNullLogger(), to: to, said: &said{last: make(map[string]time.Time)}}
}

// again tells whether msg was said within repeatAfter, and notes that it is now.
func (s *said) again(msg string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if last, ok := s.last[msg]; ok && now.Sub(last) < repeatAfter {
		return true
	}
	s.last[msg] = now
	return false
}

func (l *raftLogger) Log(level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	if level >= hclog.Warn && !l.said.again(msg) {
		to = slog.LevelWarn
	}
	if !l.to.Enabled(context.Background(), to) {
		return
	}
	for i, a := range args {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			args[i] = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
	}
	l.to.Log(context.Background(), to, "raft: "+msg, args...)
}

func (l *raftLogger) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }
func (l *raftLogger) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l *raftLogger) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *raftLogger) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *raftLogger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l *raftLogger) IsTrace() bool { return false }
func (l *raftLogger) IsDebug() bool { return l.to.Enabled(context.Background(), slog.LevelDebug) }
func (l *raftLogger) IsInfo() bool  { return l.IsDebug() }
func (l *raftLogger) IsWarn() bool  { return true }
func (l *raftLogger) IsError() bool { return true }

func (l *raftLogger) With(args ...any) hclog.Logger {
	return &raftLogger{Logger: l.Logger, to: l.to.With(args...), said: l.said}
}

func (l *raftLogger) Named(string) hclog.Logger      { return l }
func (l *raftLogger) ResetNamed(string) hclog.Logger { return l }

func (l *raftLogger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return log.New(l.StandardWriter(nil), "", 0)
}

func (l *raftLogger) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return io.Discard }
