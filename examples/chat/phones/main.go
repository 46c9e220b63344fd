// Command phones is a crowd of users and assistants who talk to each other over the chat: long silences, short
// bursts, networks that go away in the middle of an exchange, apps in the background.
//
// It owns the behaviour and the accounting: that each message is heard once, by both sides, in order, and that
// presence is right. It must never know how the broker or the pipeline are made: it has names, passwords
// and topics.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

type options struct {
	broker                       string
	users, assistants            int
	duration, keepalive          time.Duration
	silence, background          time.Duration
	willDelay, tolerance, settle time.Duration
	qos                          byte
	report                       string
}

const usage = `no command given
usage: phones COMMAND [FLAGS]
  crowd      users and assistants for a while, and what became of their messages
  wire       bytes on the wire for each thing that a phone does, beside XMPP's stanzas
  accounts   a password file and an access list for a crowd (passwords are the names)`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "phones:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	var o options
	f := flag.NewFlagSet("phones "+args[0], flag.ContinueOnError)
	f.StringVar(&o.broker, "broker", "127.0.0.1:1883", "the broker, or the balancer before it")
	f.IntVar(&o.users, "users", 2000, "users")
	f.IntVar(&o.assistants, "assistants", 20, "assistants")
	f.DurationVar(&o.duration, "for", 10*time.Minute, "how long they talk")
	f.DurationVar(&o.keepalive, "keepalive", 5*time.Minute, "of the phones")
	f.DurationVar(&o.silence, "silence", 90*time.Second, "mean time between two bursts of a user")
	f.DurationVar(&o.background, "background", 45*time.Second, "mean time that an app spends in the background (an hour, made short)")
	f.DurationVar(&o.willDelay, "will-delay", 10*time.Second, "before a phone that has vanished counts as away")
	f.DurationVar(&o.tolerance, "tolerance", 5*time.Second, "beyond the will's delay until presence has to be right")
	f.DurationVar(&o.settle, "settle", 4*time.Minute, "how long what is under way at the end may take")
	f.StringVar(&o.report, "report", "", "write the figures into this file, too, as JSON")
	qos := f.Int("qos", 2, "of messages: 1 or 2")
	dir := f.String("dir", ".", "accounts: where the files go")
	acl := f.String("acl", "examples/chat/auth/acl", "accounts: the access list to begin with")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	if *qos != 1 && *qos != 2 {
		return fmt.Errorf("-qos %d: 1 or 2", *qos)
	}
	o.qos = byte(*qos)
	switch args[0] {
	case "crowd":
		return crowd(ctx, &o)
	case "wire":
		return wire(ctx, &o)
	case "accounts":
		return accounts(&o, *dir, *acl)
	}
	return fmt.Errorf("unknown command %q: crowd, wire or accounts", args[0])
}
