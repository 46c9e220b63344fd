package operators

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// Entry is one order in the audit log. It is written when the order comes and again, under the same number,
// when it is known what became of it: a node that dies in between leaves the first.
type Entry struct {
	Time    time.Time       `json:"time"`
	Node    string          `json:"node"`
	Number  uint64          `json:"number"` // counts within one life of the node
	Who     string          `json:"who"`
	Role    string          `json:"role"`
	From    string          `json:"from"`
	What    string          `json:"what"`
	Request json.RawMessage `json:"request,omitempty"`
	Outcome string          `json:"outcome"` // begun, done, or why not
}

// Audit is the audit log: a file of JSON lines that grows to a size, and a few older ones beside it. nil keeps
// nothing.
type Audit struct {
	path   string
	node   string
	limit  int64
	logger *slog.Logger
	number atomic.Uint64

	mu   sync.Mutex
	file *os.File
	size int64
}

const (
	auditKept  = 4 // older files: .1 is the youngest
	auditLimit = 16 << 20
)

// OpenAudit opens the log for appending. Only the node's own user may read it.
func OpenAudit(path, node string, logger *slog.Logger) (*Audit, error) {
	a := &Audit{path: path, node: node, limit: auditLimit, logger: logger}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("admin.audit_file: %w", err)
	}
	if err := a.open(); err != nil {
		return nil, fmt.Errorf("admin.audit_file: %w", err)
	}
	return a, nil
}

func (a *Audit) open() error {
	f, err := os.OpenFile(a.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	a.file, a.size = f, st.Size()
	return nil
}

// Begin writes down that somebody orders something. The order must not be carried out when it fails; afterwards
// the returned function is called once, with what became of it.
func (a *Audit) Begin(o Operator, from, what string, request json.RawMessage) (func(outcome error), error) {
	if a == nil {
		return func(error) {}, nil
	}
	e := Entry{Node: a.node, Number: a.number.Add(1), Who: o.Name, Role: o.Role.String(), From: from, What: what, Request: request, Outcome: "begun"}
	if err := a.write(e); err != nil {
		return nil, fmt.Errorf("the audit log can't be written, so nothing is done: %w", err)
	}
	return func(outcome error) { a.end(e, outcome) }, nil
}

// Refuse writes down what was not allowed.
func (a *Audit) Refuse(o Operator, from, what string, why error) {
	if a != nil {
		a.end(Entry{Node: a.node, Number: a.number.Add(1), Who: o.Name, Role: o.Role.String(), From: from, What: what}, why)
	}
}

func (a *Audit) end(e Entry, outcome error) {
	e.Outcome = "done"
	if outcome != nil {
		e.Outcome = outcome.Error()
	}
	if err := a.write(e); err != nil { // it has been done: all that is left is to say so
		a.logger.Error("the audit log can't be written", "error", err, "what", e.What, "who", e.Who, "outcome", e.Outcome)
	}
}

func (a *Audit) write(e Entry) error {
	e.Time = time.Now().UTC()
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file == nil {
		return fs.ErrClosed
	}
	if a.size > 0 && a.size+int64(len(line)) > a.limit {
		if err := a.rotate(); err != nil {
			return err
		}
	}
	n, err := a.file.Write(line)
	a.size += int64(n)
	return err
}

// rotate is called with the lock held. What can't be moved away goes on growing: better than to lose it.
func (a *Audit) rotate() error {
	for i := auditKept - 1; i >= 0; i-- {
		from := a.path
		if i > 0 {
			from = fmt.Sprintf("%s.%d", a.path, i)
		}
		if err := os.Rename(from, fmt.Sprintf("%s.%d", a.path, i+1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			a.logger.Error("the audit log can't be moved away", "error", err)
			return nil
		}
	}
	old := a.file
	if err := a.open(); err != nil {
		return err
	}
	return old.Close()
}

// Close closes the file.
func (a *Audit) Close() error {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file == nil {
		return nil
	}
	err := a.file.Close()
	a.file = nil
	return err
}
