#!/bin/sh
# Switches lamps and says what became of it at each: MQTT 3.1.1 with Mosquitto's clients, and jq.
#
#     ./switch.sh on floor3 [only=lamp-1,lamp-2] [except=lamp-3]
#
# BUGLE_SERVER is the gateway, 127.0.0.1:1883 unless set. Exit codes: 0 every lamp has it, 1 refused, 2 wrong command line,
# 3 no connection, 4 no answer in time, 5 at least one lamp doesn't have it.
#
# Where nobody asks what became of it, one line is enough:
#
#     mosquitto_pub -q 1 -t 'sig/g/floor3?only=lamp-1' -m on
set -eu

# How long all of it may take, in seconds. The receipt comes within the ttl of two; the rest is for connecting.
patience=4

usage() {
    echo "usage: switch.sh COMMAND GROUP [only=ID,ID..] [except=ID,ID..]" >&2
    exit 2
}

[ $# -ge 2 ] || usage
command=$1
topic="sig/g/$2?receipt=each&ttl=2000"
shift 2
for list; do
    case $list in only=* | except=*) topic="$topic&$list" ;; *) usage ;; esac
done
# No topic of a publish may hold these.
case $topic in *[+#]*) usage ;; esac
server=${BUGLE_SERVER:-127.0.0.1:1883}

# The client id is who we are to the gateway, and receipts come to it: two programs that run at the same time mustn't have
# the same.
me=switch-$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')

# The receipt comes to whoever sent, so mosquitto_pub and mosquitto_sub, two clients with two ids, can't do this together.
# mosquitto_rr is both in one: it subscribes to the topic after -e, publishes, and prints the first message that comes.
status=0
notice=$(mosquitto_rr -V mqttv311 -h "${server%:*}" -p "${server##*:}" -i "$me" -q 1 -W "$patience" \
    -e "sig/r/$me" -t "$topic" -m "$command") || status=$?
if [ -z "$notice" ]; then
    case $status in
    0 | 27) # what mosquitto_rr ends with when its time is over
        echo "no answer within $patience s" >&2
        exit 4
        ;;
    esac
    echo "no connection to the gateway; is it running (bugle serve)?" >&2
    exit 3
fi

if [ "$(echo "$notice" | jq -r .type)" = refusal ]; then
    echo "$notice" | jq -r '"refused: \(.code): \(.reason)"' >&2
    exit 1
fi
# Of a receipt in several parts (8 KiB of names and more) mosquitto_rr shows the first; the counts, which decide, are whole.
echo "$notice" | jq -r '(.statuses // {} | to_entries[] | "\(.key) \(.value)"),
    (.counts | to_entries | map("\(.value) \(.key)") | join(", ") | if . == "" then "nobody is there" else . end)'
echo "$notice" | jq -e '.counts | keys == ["delivered"]' >/dev/null || exit 5
