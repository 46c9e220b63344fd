"""The transcript: conversations, messages and what is still to be sent, in one SQLite file.

Every change is one transaction, so a worker that dies at any moment leaves either all of it or nothing. Several
workers share the file; whoever writes holds SQLite's write lock for a millisecond or two.
"""
import json
import sqlite3
import time

SCHEMA = """
CREATE TABLE IF NOT EXISTS conversations (
  id INTEGER PRIMARY KEY, user TEXT NOT NULL, assistant TEXT, state TEXT NOT NULL, opened REAL NOT NULL,
  last INTEGER NOT NULL DEFAULT 0);
CREATE UNIQUE INDEX IF NOT EXISTS one_open ON conversations(user) WHERE state != 'closed';
CREATE INDEX IF NOT EXISTS by_assistant ON conversations(assistant, state);
-- seq has no gaps: whoever receives messages puts them in order by it and sees what is missing.
CREATE TABLE IF NOT EXISTS messages (
  conv INTEGER NOT NULL, seq INTEGER NOT NULL, sender TEXT NOT NULL, device TEXT NOT NULL, n INTEGER NOT NULL,
  text TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (conv, seq), UNIQUE (sender, device, n)) WITHOUT ROWID;
-- Each device numbers what it sends: 1, 2, 3 ... last is how far it was taken.
CREATE TABLE IF NOT EXISTS devices (
  sender TEXT NOT NULL, device TEXT NOT NULL, last INTEGER NOT NULL, PRIMARY KEY (sender, device)) WITHOUT ROWID;
-- Came to one worker before its predecessor had come to another.
CREATE TABLE IF NOT EXISTS early (
  sender TEXT NOT NULL, device TEXT NOT NULL, n INTEGER NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (sender, device, n)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS marks (
  conv INTEGER NOT NULL, who TEXT NOT NULL, delivered INTEGER NOT NULL, read INTEGER NOT NULL,
  PRIMARY KEY (conv, who)) WITHOUT ROWID;
-- What is to be published and not yet acknowledged by the broker. claimed: until when its worker has time.
CREATE TABLE IF NOT EXISTS outbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, body TEXT NOT NULL, retain INTEGER NOT NULL,
  expiry INTEGER, worker TEXT NOT NULL, claimed REAL NOT NULL);
"""

CLAIM = 10  # s until another worker may send what one has not


class Refused(Exception):
    """The sender may not say this; the text is for the sender."""


def message(conv, seq, sender, device, n, text, at, reader):
    body = {"conv": conv, "seq": seq, "from": sender, "n": n, "text": text, "at": at}
    if reader == sender:
        body["device"] = device
    return body


class Transcript:
    def __init__(self, path, worker):
        self.worker = worker
        self.db = sqlite3.connect(path, timeout=30, isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")  # what we acknowledge has to survive a power cut
        with self:
            for statement in SCHEMA.split(";"):
                self.db.execute(statement)

    def __enter__(self):
        self.db.execute("BEGIN IMMEDIATE")
        self.fresh = []
        return self

    def __exit__(self, kind, error, trace):
        self.db.execute("COMMIT" if kind is None else "ROLLBACK")

    def one(self, sql, *args):
        return self.db.execute(sql, args).fetchone()

    # -- inside a transaction

    def send(self, topic, body, retain=False, expiry=None):
        """Puts a message into the outbox; fresh holds it for whoever ends the transaction."""
        text = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
        row = self.db.execute(
            "INSERT INTO outbox (topic, body, retain, expiry, worker, claimed) VALUES (?, ?, ?, ?, ?, ?)",
            (topic, text, retain, expiry, self.worker, time.time() + CLAIM))
        self.fresh.append((row.lastrowid, topic, text, retain, expiry))

    def take(self, sender, device, n, body):
        """Yields the messages that are due now, in the order in which the device numbered them: none for a
        repeat and for one that is too early, several when one closes a gap."""
        last = self.one("SELECT last FROM devices WHERE sender = ? AND device = ?", sender, device)
        last = last[0] if last else 0
        if n <= last:
            return
        if n > last + 1:
            self.db.execute("INSERT OR IGNORE INTO early VALUES (?, ?, ?, ?)", (sender, device, n, json.dumps(body)))
            return
        while body is not None:
            last += 1
            yield last, body
            row = self.one("DELETE FROM early WHERE sender = ? AND device = ? AND n = ? RETURNING body", sender, device, last + 1)
            body = json.loads(row[0]) if row else None
        self.db.execute("INSERT INTO devices VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET last = excluded.last",
                        (sender, device, last))

    def conversation_of(self, user):
        """The user's conversation that is not closed, made if there is none: (id, whether it is new)."""
        row = self.one("SELECT id FROM conversations WHERE user = ? AND state != 'closed'", user)
        if row:
            return row[0], False
        made = self.db.execute("INSERT INTO conversations (user, state, opened) VALUES (?, 'waiting', ?)", (user, time.time()))
        return made.lastrowid, True

    def led_by(self, assistant, conv):
        """The user of a conversation that this assistant leads."""
        row = self.one("SELECT user FROM conversations WHERE id = ? AND assistant = ? AND state = 'open'", conv, assistant)
        if not row:
            raise Refused("This conversation is closed, or not yours.")
        return row[0]

    def add(self, conv, sender, device, n, text, at):
        """Adds a message and sends it to everybody in the conversation, the sender included: the echo carries
        its number in the conversation, and tells the sender's other devices. Only the sender gets to know the
        device: it is a client id, and whoever knows one can end its session."""
        seq, user, assistant = self.one(
            "UPDATE conversations SET last = last + 1 WHERE id = ? RETURNING last, user, assistant", conv)
        self.db.execute("INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?)", (conv, seq, sender, device, n, text, at))
        for name in (user, assistant):
            if name:
                self.send(f"chat/u/{name}/in/msg", message(conv, seq, sender, device, n, text, at, name))
        return seq

    def announce(self, conv):
        """Tells both sides of the state of a conversation, retained: the list of a page that starts anew."""
        user, assistant, state, opened = self.one("SELECT user, assistant, state, opened FROM conversations WHERE id = ?", conv)
        expiry = 7 * 86400 if state == "closed" else None
        for name, peer in ((user, assistant), (assistant, user)):
            if name:
                topic = f"chat/u/{name}/in/conv/{conv}"
                self.db.execute("DELETE FROM outbox WHERE topic = ?", (topic,))  # an older state must not come later
                self.send(topic, {"conv": conv, "with": peer, "state": state, "opened": int(opened * 1000)},
                          retain=True, expiry=expiry)

    def assign(self, present):
        """Gives each waiting conversation to the one of the assistants who has the fewest, and what was said in
        it so far. Returns how many were given."""
        if not present:
            return 0
        load = {name: 0 for name in present}
        for name, count in self.db.execute("SELECT assistant, count(*) FROM conversations WHERE state = 'open' GROUP BY assistant"):
            if name in load:
                load[name] = count
        waiting = self.db.execute("SELECT id FROM conversations WHERE state = 'waiting' ORDER BY id").fetchall()
        for (conv,) in waiting:
            name = min(load, key=lambda n: (load[n], n))
            load[name] += 1
            self.db.execute("UPDATE conversations SET state = 'open', assistant = ? WHERE id = ?", (name, conv))
            self.announce(conv)
            for body in self.messages(conv, 0, 1 << 62, -1, name):
                self.send(f"chat/u/{name}/in/msg", body)
        return len(waiting)

    def close(self, conv):
        self.db.execute("UPDATE conversations SET state = 'closed' WHERE id = ?", (conv,))
        self.announce(conv)

    def sent(self, ids):
        """The broker has them."""
        self.db.executemany("DELETE FROM outbox WHERE id = ?", [(i,) for i in ids])

    def claim(self, own):
        """What nobody has sent in time, or (own) what this worker had not when it ended: now this worker's."""
        mine, now = (1 if own else 0), time.time()
        rows = self.db.execute(
            "UPDATE outbox SET worker = ?, claimed = ? WHERE id IN (SELECT id FROM outbox WHERE claimed < ?"
            " OR (worker = ? AND ?) ORDER BY id LIMIT 500) RETURNING id, topic, body, retain, expiry",
            (self.worker, now + CLAIM, now, self.worker, mine)).fetchall()
        return sorted(rows)

    def mark(self, marks):
        """marks: {(conv, who): (delivered, read)}. They only grow."""
        self.db.executemany(
            "INSERT INTO marks VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " delivered = max(delivered, excluded.delivered), read = max(read, excluded.read)",
            [(conv, who, *m) for (conv, who), m in marks.items()])

    # -- reads

    def participants(self, conv, who):
        """The user and the assistant of a conversation, if who is one of them."""
        row = self.one("SELECT user, assistant FROM conversations WHERE id = ?", conv)
        if not row or who not in row:
            raise Refused("There is no such conversation.")
        return row

    def messages(self, conv, after, before, limit, reader):
        """The last messages between two numbers, oldest first, as that reader gets them."""
        rows = self.db.execute(
            "SELECT seq, sender, device, n, text, at FROM messages WHERE conv = ? AND seq > ? AND seq < ?"
            " ORDER BY seq DESC LIMIT ?", (conv, after, before, limit)).fetchall()
        return [message(conv, *row, reader) for row in reversed(rows)]

    def marks(self, conv):
        return {who: [d, r] for who, d, r in self.db.execute("SELECT who, delivered, read FROM marks WHERE conv = ?", (conv,))}

    def waiting(self):
        return self.one("SELECT count(*) FROM conversations WHERE state = 'waiting'")[0]
