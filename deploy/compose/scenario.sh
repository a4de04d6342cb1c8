#!/bin/sh
# What the producer and the consumers of compose.yaml do. The first argument says which part.
set -eu
bin=/opt/kafka/bin
kafka=kafka:9092

consume() { # group, further arguments
	group=$1
	shift
	"$bin/kafka-console-consumer.sh" --bootstrap-server "$kafka" --topic orders --group "$group" \
		--consumer-property auto.commit.interval.ms=1000 "$@" >/dev/null
}

case $1 in
topics)
	for topic in orders topicA; do
		"$bin/kafka-topics.sh" --bootstrap-server "$kafka" --create --if-not-exists --topic "$topic" --partitions 3 --replication-factor 1
	done
	;;
produce)
	# 50 messages a second, without end.
	exec "$bin/kafka-producer-perf-test.sh" --topic orders --num-records 1000000000 --record-size 100 --throughput 50 \
		--producer-props bootstrap.servers="$kafka"
	;;
healthy)
	consume healthy
	;;
slow)
	# Reads 20 messages a second of 50: WARN.
	while :; do consume slow --max-messages 200 && sleep 5; done
	;;
stopping)
	# Reads for two minutes, and is away for ten: STOP.
	while :; do
		timeout 120 sh "$0" reader stopping || true
		sleep 600
	done
	;;
reader)
	consume "$2"
	;;
rewinding)
	# Reads for two minutes, goes back to the beginning: REWIND.
	while :; do
		timeout 120 sh "$0" reader rewinding || true
		sleep 5
		"$bin/kafka-consumer-groups.sh" --bootstrap-server "$kafka" --group rewinding --topic orders --reset-offsets --to-earliest --execute || true
	done
	;;
*)
	echo "scenario.sh: unknown part $1" >&2
	exit 2
	;;
esac
