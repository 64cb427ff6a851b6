"""A receiver of OTLP over gRPC, of OpenTelemetry's own messages: `receiver_otel.py PORT FILE`, a span on each line."""

import json
import sys
from concurrent import futures

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as services

PORT, FILE = int(sys.argv[1]), sys.argv[2]
out = open(FILE, "w", buffering=1)


class Receiver(services.TraceServiceServicer):
    def Export(self, request, context):  # noqa: N802, the service's own name
        for of_resource in request.resource_spans:
            service = {pair.key: pair.value.string_value for pair in of_resource.resource.attributes}
            for span in (span for scope in of_resource.scope_spans for span in scope.spans):
                attributes = {pair.key: pair.value.string_value for pair in span.attributes}
                told = {"service": service["service.name"], "name": span.name, "kind": span.kind}
                told |= {"trace": span.trace_id.hex(), "span": span.span_id.hex()}
                told |= {"parent": span.parent_span_id.hex(), "attributes": attributes}
                out.write(json.dumps(told) + "\n")
        return messages.ExportTraceServiceResponse()


server = grpc.server(futures.ThreadPoolExecutor(4))
services.add_TraceServiceServicer_to_server(Receiver(), server)
server.add_insecure_port(f"127.0.0.1:{PORT}")
server.start()
server.wait_for_termination()
