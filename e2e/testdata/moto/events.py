"""Print every log event that an AWS endpoint has, as AWS's own client reads it: one JSON object a line."""

import json
import sys

import boto3

logs = boto3.client("logs", endpoint_url=sys.argv[1])
for groups in logs.get_paginator("describe_log_groups").paginate():
    for group in groups["logGroups"]:
        for streams in logs.get_paginator("describe_log_streams").paginate(logGroupName=group["logGroupName"]):
            for stream in streams["logStreams"]:
                token = None
                while True:
                    page = logs.get_log_events(
                        logGroupName=group["logGroupName"],
                        logStreamName=stream["logStreamName"],
                        startFromHead=True,
                        **({"nextToken": token} if token else {}),
                    )
                    for event in page["events"]:
                        print(json.dumps({
                            "group": group["logGroupName"],
                            "stream": stream["logStreamName"],
                            "timestamp": event["timestamp"],
                            "message": event["message"],
                        }))
                    # The same token again is how AWS says that there is no more.
                    if page["nextForwardToken"] == token:
                        break
                    token = page["nextForwardToken"]
