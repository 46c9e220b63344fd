"""One scenario with Paho: VERSION (3.1.1 or 5.0), TRANSPORT (tcp or websockets), PORT of one node, PORT of another.

Prints a line for each part that went well; ends with 1 at the first that does not."""
import socket
import sys
import threading
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

version, transport, here, there = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
five = version == "5.0"
base = "py" + version + transport + ("one" if here == there else "two")


def until(what, ok):
    deadline = time.time() + 20
    while not ok():
        if time.time() > deadline:
            print("failed:", what)
            sys.exit(1)
        time.sleep(0.01)


def want(what, ok):
    if not ok:
        print("failed:", what)
        sys.exit(1)


def done(part):
    print("ok " + part, flush=True)


def properties(kind, **values):
    if not five:
        return None
    p = Properties(kind)
    for name, value in values.items():
        setattr(p, name, value)
    return p


class Client:
    """A client that keeps what it gets."""

    def __init__(self, port, name, kept=False, clean=None, will=None):
        self.got, self.up, self.granted = [], threading.Event(), {}
        args = dict(client_id=base + name, transport=transport)
        if hasattr(mqtt, "CallbackAPIVersion"):
            args["callback_api_version"] = mqtt.CallbackAPIVersion.VERSION1
        if five:
            args["protocol"] = mqtt.MQTTv5
        else:
            args["protocol"], args["clean_session"] = mqtt.MQTTv311, not kept if clean is None else clean
        c = self.c = mqtt.Client(**args)
        c.on_message = lambda _c, _u, m: self.got.append(m)
        if five:
            c.on_connect = lambda _c, _u, flags, code, _p: self.connected(flags, code)
            c.on_subscribe = lambda _c, _u, mid, codes, _p: self.granted.__setitem__(mid, [x.value for x in codes])
        else:
            c.on_connect = lambda _c, _u, flags, code: self.connected(flags, code)
            c.on_subscribe = lambda _c, _u, mid, codes: self.granted.__setitem__(mid, list(codes))
        if will:
            c.will_set(*will)
        more = {}
        if five:
            more["clean_start"] = not kept if clean is None else clean
            if kept:
                more["properties"] = properties(PacketTypes.CONNECT, SessionExpiryInterval=600)
        c.connect("127.0.0.1", port, 30, **more)
        c.loop_start()
        want("no CONNACK for " + name, self.up.wait(20))

    def connected(self, flags, code):
        want("refused: %s" % code, code == 0)
        self.present = flags["session present"]
        self.up.set()

    def subscribe(self, topic, qos):
        _, mid = self.c.subscribe(topic, options=SubscribeOptions(qos=qos)) if five else self.c.subscribe(topic, qos)
        until("SUBACK", lambda: mid in self.granted)
        want("granted %s" % self.granted[mid], self.granted[mid] == [qos])

    def publish(self, topic, payload, qos, retain=False, **props):
        more = {"properties": properties(PacketTypes.PUBLISH, **props)} if props else {}
        info = self.c.publish(topic, payload, qos, retain, **more)
        until("an acknowledgement", info.is_published)

    def payloads(self, topic):
        return [m.payload.decode() for m in list(self.got) if m.topic == topic]

    def leave(self):
        self.c.disconnect()
        self.c.loop_stop()

    def cut(self):
        # Its thread must not connect again.
        self.c.reconnect_delay_set(1000, 1000)
        self.c.socket().shutdown(socket.SHUT_RDWR) if transport == "tcp" else self.c.socket().close()
        threading.Thread(target=self.c.loop_stop, daemon=True).start()


pub, sub = Client(there, "pub"), Client(here, "sub", kept=True)
want("a new session is present", not sub.present)
for qos in range(3):
    topic = "%s/qos%d" % (base, qos)
    sub.subscribe(topic, qos)
    for i in range(20):
        pub.publish(topic, str(i), qos)
    until("all at QoS %d" % qos, lambda: len(sub.payloads(topic)) >= 20)
    want("order at QoS %d" % qos, sub.payloads(topic) == [str(i) for i in range(20)])
done("qos")

pub.publish(base + "/kept", "kept", 1, retain=True)
sub.subscribe(base + "/kept", 1)
until("retained", lambda: sub.payloads(base + "/kept") == ["kept"])
want("its flag", [m.retain for m in sub.got if m.topic == base + "/kept"] == [1])
pub.publish(base + "/kept", "", 1, retain=True)
done("retained")

sub.subscribe(base + "/will", 1)
Client(there, "dying", will=(base + "/will", "gone", 1)).cut()
until("the will", lambda: sub.payloads(base + "/will") == ["gone"])
Client(there, "leaving", will=(base + "/will", "wrong", 1)).leave()
done("will")

members = [Client(here, "m1"), Client(there, "m2")]
for m in members:
    m.subscribe("$share/g/%s/shared" % base, 1)
for i in range(20):
    pub.publish(base + "/shared", str(i), 1)
until("shared", lambda: sum(len(m.got) for m in members) >= 20)
want("each once", sorted(int(p) for m in members for p in m.payloads(base + "/shared")) == list(range(20)))
want("both members", all(m.got for m in members))
for m in members:
    m.leave()
done("shared")

if five:
    sub.subscribe(base + "/expiry", 1)
    pub.publish(base + "/expiry", "in time", 1, MessageExpiryInterval=60)
    until("expiry", lambda: sub.payloads(base + "/expiry") == ["in time"])
    left = [m.properties.MessageExpiryInterval for m in sub.got if m.topic == base + "/expiry"][0]
    want("what is left of it: %d" % left, 30 < left <= 60)
    done("expiry")

    service = Client(here, "service")
    service.c.on_message = lambda c, _u, m: c.publish(
        m.properties.ResponseTopic, m.payload.upper(), 1,
        properties=properties(PacketTypes.PUBLISH, CorrelationData=m.properties.CorrelationData))
    service.subscribe(base + "/request", 1)
    pub.subscribe(base + "/response", 1)
    pub.publish(base + "/request", "hello", 1, ResponseTopic=base + "/response", CorrelationData=b"42")
    until("the response", lambda: pub.payloads(base + "/response") == ["HELLO"])
    want("its correlation", pub.got[0].properties.CorrelationData == b"42")
    service.leave()
    done("request and response")

sub.cut()
for i in range(20, 30):
    pub.publish(base + "/qos2", str(i), 2)
if five:
    pub.publish(base + "/expiry", "too late", 1, MessageExpiryInterval=1)
    time.sleep(2.5)
again = Client(there, "sub", kept=True)
want("the session is gone", again.present)
until("what was queued", lambda: len(again.payloads(base + "/qos2")) >= 10)
want("it once, in order", again.payloads(base + "/qos2") == [str(i) for i in range(20, 30)])
want("what has expired", again.payloads(base + "/expiry") == [])
want("one will", sub.payloads(base + "/will") == ["gone"] and again.payloads(base + "/will") == [])
again.leave()
Client(there, "sub", clean=True).leave()
pub.leave()
done("session")
