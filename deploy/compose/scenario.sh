#!/bin/sh
# What the producer and the consumers of compose.yaml do. The first argument says which part.
set -eu
bin=/opt/kafka/bin
kafka=kafka:9092

# consume reads until it is stopped, or until it has read as many messages as it was told.
consume() { # group, further arguments
	group=$1
	shift
	"$bin/kafka-console-consumer.sh" --bootstrap-server "$kafka" --topic orders --group "$group" \
		--consumer-property auto.commit.interval.ms=1000 "$@"
}

# slowly takes 20 lines a second. The consumer in front of it waits, so it is the one that is slow.
slowly() {
	lines=0
	while read -r _; do
		lines=$((lines + 1))
		[ $((lines % 10)) -ne 0 ] || sleep 0.5
	done
}

# Small answers, so that it reads from all partitions in turn: otherwise it would stay with one of them for minutes.
small="--consumer-property max.poll.records=10 --consumer-property max.partition.fetch.bytes=2000"

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
	consume healthy >/dev/null
	;;
slow)
	# 20 of 50 messages a second: WARN.
	consume slow $small | slowly
	;;
stopping)
	# Reads for two minutes, and is away for ten: STOP.
	while :; do
		consume stopping --max-messages 6000 >/dev/null
		sleep 600
	done
	;;
rewinding)
	# Reads for four minutes, too slowly, and goes back to the beginning: REWIND. Burrow says it of a group only that is behind all the time.
	while :; do
		consume rewinding $small --max-messages 4800 | slowly
		"$bin/kafka-consumer-groups.sh" --bootstrap-server "$kafka" --group rewinding --topic orders --reset-offsets --to-earliest --execute || true
	done
	;;
*)
	echo "scenario.sh: unknown part $1" >&2
	exit 2
	;;
esac
