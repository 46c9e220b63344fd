"""Prints what is said about cricket in India."""
import sys

import paho.mqtt.client as mqtt


def on_connect(client, userdata, flags, rc):
    print("connected with result code " + str(rc), flush=True)
    client.subscribe("sports/cricket/india")


def on_message(client, userdata, msg):
    print(msg.topic + " " + msg.payload.decode(), flush=True)


if hasattr(mqtt, "CallbackAPIVersion"):  # paho 2
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION1)
else:
    client = mqtt.Client()
client.on_connect = on_connect
client.on_message = on_message
client.connect(sys.argv[1] if len(sys.argv) > 1 else "localhost", int(sys.argv[2]) if len(sys.argv) > 2 else 1883, 60)
client.loop_forever()
