package replica

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
)

func TestRaftLogs(t *testing.T) {
	var out bytes.Buffer
	l := newRaftLogger(slog.New(slog.NewTextHandler(&out, nil)))
	l.Info("nobody needs this")
	l.Debug("nor this")
	for range 3 {
		l.With("peer", "b").Error("failed to heartbeat to", "error", "refused")
	}
	l.Warn("failed to contact", "time", hclog.Fmt("%d ms", 7))
	got := out.String()
	if strings.Count(got, "\n") != 2 || strings.Contains(got, "need") {
		t.Errorf("logged:\n%s", got)
	}
	for _, want := range []string{`level=WARN msg="raft: failed to heartbeat to" peer=b error=refused`, `time="7 ms"`} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is not in:\n%s", want, got)
		}
	}
}
