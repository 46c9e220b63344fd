#!/usr/bin/env python3
"""One worker of the chat's pipeline: every message passes through here. See ../TOPICS.md.

It takes what users and assistants send (a shared subscription: start as many workers as you like), writes it into the
transcript, answers simple questions, assigns conversations to assistants, and hands messages on.

It never loses nor doubles a message, also when it is killed at any moment, because of the order of three steps:
 1. a message, its place in the conversation and what is to be sent because of it are one SQLite transaction;
 2. only then the broker gets PUBACK (paho sends it when on_message returns); killed before that, the
    message comes again, and its number (device, n) says that it is known;
 3. what is to be sent stays in the table outbox until the broker has acknowledged it.
That is why the subscription is QoS 1: paho keeps a QoS 2 message in memory between PUBREC and PUBREL, so a
worker that is killed there would lose it. The number makes exactly once out of at least once.
"""
import argparse
import hashlib
import json
import logging
import random
import signal
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from answers import answer
from transcript import Refused, Transcript

log = logging.getLogger("pipeline")

OUTBOXES = "chat/u/+/out/+/#"
STAFF = "chat/staff/+/+"
LONGEST = 4000  # characters of a message
HOUR = 3600


def number(body, name, least=0):
    value = body.get(name)
    if type(value) is not int or not least <= value < 1 << 53:
        raise ValueError(f"{name} is {value!r}")
    return value


class Worker:
    def __init__(self, args):
        self.args = args
        self.transcript = Transcript(args.database, args.name)
        self.staff = {}  # name -> {client id: whether it is there}
        self.sending = {}  # packet id -> outbox id
        self.acknowledged = []  # outbox ids
        self.fresh_marks = {}  # (conv, who) -> (delivered, read)
        self.stopping = False
        self.came = self.repeated = 0
        # The access file keeps nobody from joining a shared group, and a stranger's share would be lost. So its
        # name is one that only those know who have the password; from it nobody gets back to the password.
        self.group = hashlib.pbkdf2_hmac("sha256", args.password.encode(), b"the pipeline's group", 200_000, 10).hex()
        kind = {"client_id": f"pipeline.{args.name}.{self.group}", "protocol": mqtt.MQTTv5}
        if hasattr(mqtt, "CallbackAPIVersion"):  # paho 2
            kind["callback_api_version"] = mqtt.CallbackAPIVersion.VERSION1
        self.client = mqtt.Client(**kind)
        self.client.username_pw_set(args.user, args.password)
        self.client.max_inflight_messages_set(200)
        self.client.on_connect = self.on_connect
        self.client.on_publish = self.on_publish
        self.client.on_message = self.on_message

    # -- connection

    def connect(self):
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = self.args.session_expiry
        self.client.connect(self.args.host, self.args.port, keepalive=30, clean_start=False, properties=properties)

    def on_connect(self, client, userdata, flags, reason, properties=None):
        if reason != 0:
            log.error("the broker refuses: %s", reason)
            return
        log.info("connected, session %s", "resumed" if flags["session present"] else "new")
        # Asked each time: who of the staff is there comes as retained messages.
        client.subscribe([(f"$share/{self.group}/{OUTBOXES}", SubscribeOptions(qos=1)), (STAFF, SubscribeOptions(qos=1))])

    def run(self):
        """Until told to stop. An error of the database ends the process: what was not acknowledged comes again."""
        backoff = 0.2
        started = False
        next_turn = 0
        while not self.stopping:
            try:
                self.connect()
            except OSError as err:
                log.warning("%s:%d: %s", self.args.host, self.args.port, err)
            while not self.stopping and self.client.loop(timeout=0.2) == mqtt.MQTT_ERR_SUCCESS:
                if self.client.is_connected():
                    backoff = 0.2
                    if not started:
                        self.publish_claimed(own=True)
                        started = True
                if time.monotonic() >= next_turn:
                    self.housekeeping()
                    next_turn = time.monotonic() + 0.5
            if not self.stopping:
                wait = random.uniform(backoff / 2, backoff)
                backoff = min(10, backoff * 2)
                time.sleep(wait)
        self.housekeeping()
        properties = None
        if self.args.leave:  # for good: the others get what was meant for this worker
            properties = Properties(PacketTypes.DISCONNECT)
            properties.SessionExpiryInterval = 0
        self.client.disconnect(properties=properties)
        self.client.loop(timeout=0.2)
        log.info("%d messages, %d of them repeats", self.came, self.repeated)

    def housekeeping(self):
        """Twice a second: what may wait, in one transaction, and what somebody else has left behind."""
        t = self.transcript
        waiting = t.waiting() > 0 and self.present()
        if self.acknowledged or self.fresh_marks or waiting:
            with t:
                t.sent(self.acknowledged)
                t.mark(self.fresh_marks)
                if waiting:
                    t.assign(self.present())
            self.acknowledged, self.fresh_marks = [], {}
            self.publish(t.fresh)
        if self.client.is_connected():
            self.publish_claimed(own=False)

    # -- out

    def publish_claimed(self, own):
        t = self.transcript
        # What is on its way already must not be sent again by ourselves.
        if t.one("SELECT 1 FROM outbox WHERE claimed < ? OR worker = ? LIMIT 1", time.time(), t.worker if own else ""):
            with t:
                rows = t.claim(own)
            busy = set(self.sending.values()) | set(self.acknowledged)
            self.publish([row for row in rows if row[0] not in busy])

    def publish(self, rows):
        for outbox, topic, text, retain, expiry in rows:
            self.sending[self.say(topic, text, 1, bool(retain), expiry)] = outbox

    def say(self, topic, text, qos=0, retain=False, expiry=None, correlation=None):
        properties = Properties(PacketTypes.PUBLISH)
        if expiry:
            properties.MessageExpiryInterval = expiry
        if correlation:
            properties.CorrelationData = correlation
        return self.client.publish(topic, text, qos=qos, retain=retain, properties=properties).mid

    def on_publish(self, client, userdata, mid):
        outbox = self.sending.pop(mid, None)
        if outbox is not None:
            self.acknowledged.append(outbox)

    # -- in

    def on_message(self, client, userdata, message):
        """PUBACK leaves when this returns. What nobody could make sense of is dropped here: coming again, it
        would be no better."""
        try:
            parts = message.topic.split("/")
            if parts[:2] == ["chat", "staff"]:
                return self.on_staff(parts[2], parts[3], message.payload)
            # The broker lets nobody write here but the user with that name and that client id.
            _, _, who, _, device, kind = parts
            body = json.loads(message.payload)
            if not isinstance(body, dict):
                raise ValueError("no object")
            handler = {"msg": self.on_msg, "seen": self.on_seen, "typing": self.on_typing, "history": self.on_history}.get(kind)
            if handler is None:
                raise ValueError("an unknown kind")
            handler(who, device, body, message)
        except (ValueError, KeyError, TypeError, RecursionError) as err:
            log.warning("dropped: %s: %s", message.topic, err)
        except Refused as err:
            log.info("refused: %s: %s", message.topic, err)

    def on_msg(self, who, device, body, message):
        self.came += 1
        n = number(body, "n", least=1)
        t = self.transcript
        with t:
            due = 0
            for n, body in t.take(who, device, n, body):
                due += 1
                try:
                    self.add(who, device, n, body)
                except (Refused, ValueError) as err:  # it has its number, so that the next one can follow
                    log.warning("not taken: %s %d: %s", message.topic, n, err)
                    t.send(f"chat/u/{who}/in/notice", {"n": n, "device": device, "text": str(err)}, expiry=HOUR)
            if due == 0:
                self.repeated += 1
        self.publish(t.fresh)

    def add(self, who, device, n, body):
        t = self.transcript
        close, text = body.get("close") is True, body.get("text")
        if not close and not (isinstance(text, str) and 0 < len(text) <= LONGEST):
            raise ValueError(f"A message has 1 to {LONGEST} characters.")
        at = number(body, "at")
        if not close:
            text.encode()  # half of a surrogate pair is no text: a ValueError before anything has changed
        if who in self.args.assistants:
            conv = number(body, "conv", least=1)
            t.led_by(who, conv)
            if close:
                t.close(conv)
            else:
                t.add(conv, who, device, n, text, at)
            return
        if close:
            raise Refused("Only assistants close conversations.")
        conv, new = t.conversation_of(who)
        if new and t.assign(self.present()) == 0:
            t.announce(conv)
        t.add(conv, who, device, n, text, at)
        reply = answer(text)
        if reply:
            # Numbered by the conversation: the bot's own device never speaks twice.
            t.add(conv, "bot", f"conv{conv}", t.one("SELECT last FROM conversations WHERE id = ?", conv)[0] + 1, reply, at)
        if new and not self.present():
            t.send(f"chat/u/{who}/in/notice", {"conv": conv, "text": "Nobody is here right now. The next assistant who comes will answer."}, expiry=HOUR)

    def on_seen(self, who, device, body, message):
        conv, delivered, read = number(body, "conv", least=1), number(body, "d"), number(body, "r")
        others = [p for p in self.transcript.participants(conv, who) if p and p != who]
        old = self.fresh_marks.get((conv, who), (0, 0))
        self.fresh_marks[conv, who] = max(old[0], delivered), max(old[1], read)
        for name in [*others, who]:  # and to the own other devices: read here is read there
            self.say(f"chat/u/{name}/in/seen", json.dumps({"conv": conv, "by": who, "d": delivered, "r": read}))

    def on_typing(self, who, device, body, message):
        conv = number(body, "conv", least=1)
        for name in self.transcript.participants(conv, who):
            if name and name != who:
                self.say(f"chat/u/{name}/in/typing", json.dumps({"conv": conv, "by": who}))

    def on_history(self, who, device, body, message):
        """Answers a request. This worker may write anywhere in chat/, so it must not be talked into it: the
        answer goes into the asker's own inbox, whatever the response topic says."""
        topic = getattr(message.properties, "ResponseTopic", "")
        if topic != f"chat/u/{who}/in/reply/{device}":
            raise ValueError(f"the response topic {topic!r} is not the asker's")
        correlation = getattr(message.properties, "CorrelationData", None)
        t = self.transcript
        conv = number(body, "conv", least=1)
        t.participants(conv, who)
        body = {"before": 1 << 52, "after": 0, "limit": 50, **body}
        found = t.messages(conv, number(body, "after"), number(body, "before"), min(number(body, "limit"), 200), who)
        text = json.dumps({"conv": conv, "messages": found, "marks": t.marks(conv)}, ensure_ascii=False)
        self.say(topic, text, qos=1, expiry=60, correlation=correlation)

    # -- staff

    def on_staff(self, name, client_id, payload):
        """Presence of the assistants. Retained and with a will, so the broker keeps it right, not we."""
        there = False
        if payload:
            body = json.loads(payload)
            there = body.get("state") == "online"
        if name in self.args.assistants:
            self.staff.setdefault(name, {})[client_id] = there

    def present(self):
        return sorted(name for name, clients in self.staff.items() if any(clients.values()))


def main():
    p = argparse.ArgumentParser(description="One worker of the chat's pipeline.")
    p.add_argument("--host", default="127.0.0.1", help="the broker, or the balancer before it")
    p.add_argument("--port", type=int, default=1883)
    p.add_argument("--user", default="pipeline")
    p.add_argument("--password-file", required=True, help="a file with the password of that user")
    p.add_argument("--name", required=True, help="of this worker: the same each time that it is started")
    p.add_argument("--database", required=True, help="the transcript, one for all workers")
    p.add_argument("--assistants", required=True, help="names of the assistants, separated by commas")
    p.add_argument("--session-expiry", type=int, default=86400, help="seconds for which the broker keeps what is meant for this worker")
    p.add_argument("--leave", action="store_true", help="at SIGTERM, leave what is meant for this worker to the others")
    args = p.parse_args()
    args.assistants = set(args.assistants.split(","))
    with open(args.password_file, encoding="utf-8") as f:
        args.password = f.read().strip()
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {args.name} %(levelname)s %(message)s")
    worker = Worker(args)

    def stop(signum, frame):
        worker.stopping = True
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    worker.run()


if __name__ == "__main__":
    main()
