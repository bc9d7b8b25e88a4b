/* Publish with librabbitmq, mandatory and with publisher confirms, and print what it cost as one line of JSON.
 *
 * Usage: librabbitmq_publish HOST PORT CAFILE EXCHANGE ROUTING_KEY APP_ID GIVEN SIZE WINDOW WARM_UP COUNT
 * GIVEN: "properties", "headers" for those and headers, or "none" for an id, a timestamp and an app id.
 * CAFILE is "-" for a plain connection. WARM_UP messages are sent before COUNT measured ones, in the same way.
 * With WINDOW 1 the latency of each measured message is printed too, in seconds.
 */
#include <amqp.h>
#include <amqp_ssl_socket.h>
#include <amqp_tcp_socket.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static amqp_connection_state_t connection;
static amqp_bytes_t exchange, routing_key, app_id, body;
static uint64_t last_tag, oldest_tag = 1;
static bool *confirmed;
static bool none, with_headers;

static void fail(const char *what) {
  fprintf(stderr, "librabbitmq_publish: %s failed\n", what);
  exit(1);
}

static void check(int status, const char *what) {
  if (status < 0) {
    fprintf(stderr, "librabbitmq_publish: %s: %s\n", what, amqp_error_string2(status));
    exit(1);
  }
}

static double now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec + at.tv_nsec * 1e-9;
}

static double seconds(struct timeval at) { return at.tv_sec + at.tv_usec * 1e-6; }

static void connect_to(const char *host, int port, const char *cafile) {
  connection = amqp_new_connection();
  amqp_socket_t *socket;
  if (strcmp(cafile, "-") == 0) {
    socket = amqp_tcp_socket_new(connection);
  } else {
    socket = amqp_ssl_socket_new(connection);
    check(amqp_ssl_socket_set_cacert(socket, cafile), "read the CA file");
  }
  check(amqp_socket_open(socket, host, port), "connect");
  amqp_rpc_reply_t reply = amqp_login(connection, "/", 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, "guest", "guest");
  if (reply.reply_type != AMQP_RESPONSE_NORMAL) fail("login");
  if (amqp_channel_open(connection, 1) == NULL) fail("open a channel");
  if (amqp_confirm_select(connection, 1) == NULL) fail("select confirms");
}

static amqp_table_entry_t text(const char *name, const char *value) {
  amqp_field_value_t field = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = amqp_cstring_bytes(value)};
  return (amqp_table_entry_t){amqp_cstring_bytes(name), field};
}

static void publish(void) {
  char message_id[37];
  snprintf(message_id, sizeof message_id, "%036lx", (unsigned long)last_tag);
  amqp_basic_properties_t properties = {
      ._flags = AMQP_BASIC_MESSAGE_ID_FLAG,
      .message_id = amqp_cstring_bytes(message_id),
  };
  if (none) {
    properties._flags |= AMQP_BASIC_TIMESTAMP_FLAG | AMQP_BASIC_APP_ID_FLAG;
    properties.timestamp = time(NULL);
    properties.app_id = app_id;
  } else {
    properties._flags |= AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG;
    properties.content_type = amqp_cstring_bytes("application/json");
    properties.delivery_mode = AMQP_DELIVERY_PERSISTENT;
  }
  char traceparent[56];
  amqp_table_entry_t headers[3];
  if (with_headers) {
    snprintf(traceparent, sizeof traceparent, "00-%032d-%016lx-01", 0, (unsigned long)last_tag);
    headers[0] = text("traceparent", traceparent);
    headers[1] = text("schema", "user.created");
    headers[2] = (amqp_table_entry_t){amqp_cstring_bytes("version"), {.kind = AMQP_FIELD_KIND_I32, .value.i32 = 3}};
    properties._flags |= AMQP_BASIC_HEADERS_FLAG;
    properties.headers = (amqp_table_t){.num_entries = 3, .entries = headers};
  }
  check(amqp_basic_publish(connection, 1, exchange, routing_key, true, false, &properties, body), "publish");
  last_tag++;
}

/* Read one frame; return how many messages it confirmed. */
static uint64_t settle(void) {
  amqp_frame_t frame;
  uint64_t settled = 0;
  check(amqp_simple_wait_frame(connection, &frame), "read");
  if (frame.frame_type != AMQP_FRAME_METHOD || frame.payload.method.id != AMQP_BASIC_ACK_METHOD) fail("confirm");
  amqp_basic_ack_t *ack = frame.payload.method.decoded;
  uint64_t first = ack->multiple ? oldest_tag : ack->delivery_tag;
  for (uint64_t tag = first; tag <= ack->delivery_tag; tag++) {
    settled += !confirmed[tag];
    confirmed[tag] = true;
  }
  if (ack->multiple) oldest_tag = ack->delivery_tag + 1;
  amqp_maybe_release_buffers(connection);
  return settled;
}

/* Publish `count` messages with at most `window` unconfirmed; what has arrived is read before more is sent. */
static void run(uint64_t count, uint64_t window, double *latencies) {
  uint64_t sent = 0, settled = 0;
  while (settled < count) {
    double started = latencies ? now() : 0;
    for (; sent < count && sent - settled < window; sent++) publish();
    do {
      settled += settle();
    } while (settled < sent && (amqp_frames_enqueued(connection) || amqp_data_in_buffer(connection)));
    if (latencies) latencies[settled - 1] = now() - started;
  }
}

int main(int argc, char **argv) {
  if (argc != 12) fail("reading eleven arguments");
  exchange = amqp_cstring_bytes(argv[4]);
  routing_key = amqp_cstring_bytes(argv[5]);
  app_id = amqp_cstring_bytes(argv[6]);
  none = strcmp(argv[7], "none") == 0;
  with_headers = strcmp(argv[7], "headers") == 0;
  body = amqp_bytes_malloc(strtoul(argv[8], NULL, 10));
  memset(body.bytes, 'x', body.len);
  uint64_t window = strtoul(argv[9], NULL, 10), warm_up = strtoul(argv[10], NULL, 10), count = strtoul(argv[11], NULL, 10);
  confirmed = calloc(warm_up + count + 1, sizeof *confirmed);
  double *latencies = window == 1 ? calloc(count, sizeof *latencies) : NULL;

  connect_to(argv[1], atoi(argv[2]), argv[3]);
  run(warm_up, window, NULL);
  struct rusage before, after;
  getrusage(RUSAGE_SELF, &before);
  double started = now();
  run(count, window, latencies);
  double wall = now() - started;
  getrusage(RUSAGE_SELF, &after);

  printf("{\"messages\": %lu, \"wall\": %.9f, \"user\": %.6f, \"system\": %.6f, \"latencies\": [", (unsigned long)count, wall,
         seconds(after.ru_utime) - seconds(before.ru_utime), seconds(after.ru_stime) - seconds(before.ru_stime));
  for (uint64_t i = 0; latencies && i < count; i++) printf("%s%.9f", i ? ", " : "", latencies[i]);
  printf("]}\n");
  amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
  amqp_destroy_connection(connection);
  return 0;
}
