"""Says something about cricket in India."""
import sys

import paho.mqtt.client as mqtt

if hasattr(mqtt, "CallbackAPIVersion"):  # paho 2
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION1)
else:
    client = mqtt.Client()
client.connect(sys.argv[1] if len(sys.argv) > 1 else "localhost", int(sys.argv[2]) if len(sys.argv) > 2 else 1883, 60)
client.loop_start()
info = client.publish("sports/cricket/india", sys.argv[3] if len(sys.argv) > 3 else "India won the toss", qos=1)
info.wait_for_publish()
client.loop_stop()
client.disconnect()
