#include "net/api/api.h"

#include "core/base/json.h"
#include "net/http/client.h"
#include "net/wire/tcp.h"
#include "tests/unit/check_main.h"

#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { BODY_MAX = 1000 };

/* The API on a loop in a thread of its own, and what its callbacks were told. */
struct server {
    struct rs_loop *loop;
    struct rs_api *api;
    struct rs_metrics *metrics;
    pthread_t thread;
    uint16_t port;
    char base[64];
    char applied[BODY_MAX + 1];
    int n_applied, n_deleted, n_collected, scaled;
};

static json_t *details(bool extended, void *arg)
{
    return json_pack("{s:{s:s}, s:{s:{s:s,s:s}, s:{s:s,s:s}}, s:n}", "http_options", "host", "h",
                     "applications", "one", "name", "one", "source", "declarative", "two", "name",
                     "two", "source", "imperative", "target_capacity");
}

static json_t *no_details(bool extended, void *arg)
{
    return NULL;
}

/* Refuses what is not an object. */
static int apply(const struct rs_api_call *call, struct rs_buf *error, int *status, void *arg)
{
    rs_auto(rs_json_decrefp) json_t *config = NULL;
    struct server *s = arg;
    struct rs_error err;
    size_t len;
    const char *body = rs_api_body(call, &len);

    if (rs_json_parse(&config, body, len, "body", &err) < 0) {
        rs_buf_puts(error, err.msg);
        return -1;
    }
    if (!json_is_object(config)) {
        rs_buf_puts(error, "busy");
        *status = 503;
        return -1;
    }
    s->n_applied++;
    snprintf(s->applied, sizeof(s->applied), "%.*s", (int)len, body);
    return 0;
}

static int delete_all(const struct rs_api_call *call, struct rs_buf *error, int *status, void *arg)
{
    struct server *s = arg;

    s->n_deleted++;
    return 0;
}

static int delete_app(const struct rs_api_call *call, const char *app, struct rs_buf *error,
                      int *status, void *arg)
{
    struct server *s = arg;

    if (strcmp(app, "a b") != 0) {
        *status = 404;
        rs_buf_puts(error, "there is none");
        return -1;
    }
    s->n_deleted += 10;
    return 0;
}

/* Knows one deployment, and refuses 7 of it. */
static int scale(const struct rs_api_call *call, const char *app, const char *deployment,
                 unsigned replicas, struct rs_buf *error, int *status, void *arg)
{
    struct server *s = arg;

    if (strcmp(app, "one") != 0 || strcmp(deployment, "d e") != 0 || replicas == 7) {
        *status = replicas == 7 ? 412 : 404;
        rs_buf_puts(error, "no \"such\" thing");
        return -1;
    }
    s->scaled = (int)replicas;
    return 0;
}

static void collect(void *arg)
{
    struct server *s = arg;

    s->n_collected++;
}

/* Says which application and number it was asked for; fails as it is told. */
static int events(const struct rs_api_call *call, json_t **ret, struct rs_error *err, void *arg)
{
    static const enum rs_errc codes[] = {RS_INVALID, RS_NOT_FOUND, RS_CONFLICT,
                                         RS_NO_ROOM, RS_TIMEOUT,   RS_SYSTEM};
    const char *app = rs_api_query(call, "app");
    int64_t limit, fail;

    if (rs_api_query_int(call, "limit", 1, 100, 10, &limit, err) < 0 ||
        rs_api_query_int(call, "fail", 0, RS_COUNT(codes) - 1, -1, &fail, err) < 0)
        return -1;
    if (fail >= 0)
        return rs_error_set(err, codes[fail], "so\nit fails");
    *ret = json_pack("{s:s?, s:I}", "app", app, "limit", (json_int_t)limit);
    return 0;
}

static const struct rs_api_ops ops = {.details = details,
                                      .apply = apply,
                                      .delete_all = delete_all,
                                      .delete_app = delete_app,
                                      .scale = scale,
                                      .collect = collect,
                                      .events = events};
static const struct rs_api_ops ops_unready = {.details = no_details,
                                              .apply = apply,
                                              .delete_all = delete_all,
                                              .delete_app = delete_app,
                                              .scale = scale};

static void *turn(void *arg)
{
    struct server *s = arg;

    rs_loop_run(s->loop);
    return NULL;
}

static void stop_loop(void *arg)
{
    struct server *s = arg;

    rs_loop_stop(s->loop);
}

static void start_with(struct server *s, const char *host, const char *token,
                       const struct rs_api_ops *with, unsigned idle_s)
{
    struct rs_api_conf conf = {.host = host,
                               .token = token,
                               .metrics = s->metrics = rs_metrics_new(),
                               .version = "1.2.3",
                               .commit = "abc",
                               .session = "session_1",
                               .body_max = BODY_MAX,
                               .idle_s = idle_s};
    struct rs_error err = {0};

    rs_series_add(rs_family_series(
                      rs_metrics_family(s->metrics, &(struct rs_family_conf){.name = "ray_t_total",
                                                                             .kind = RS_COUNTER}),
                      NULL),
                  7);
    ck_assert_int_eq(rs_loop_new(&s->loop, &err), 0);
    ck_assert_msg(rs_api_new(&s->api, s->loop, &conf, with, s, &err) == 0, "%s", err.msg);
    s->port = rs_api_port(s->api);
    snprintf(s->base, sizeof(s->base), "http://127.0.0.1:%u", s->port);
    ck_assert_int_eq(pthread_create(&s->thread, NULL, turn, s), 0);
}

static void start(struct server *s)
{
    start_with(s, "127.0.0.1", NULL, &ops, 0);
}

/* After it, what the callbacks were told may be looked at. */
static void stop(struct server *s)
{
    rs_loop_post(s->loop, stop_loop, s);
    pthread_join(s->thread, NULL);
    rs_api_free(s->api);
    rs_loop_free(s->loop);
    rs_metrics_free(s->metrics);
}

static int connect_to(const struct server *s)
{
    struct rs_address to;
    char text[32];
    int fd = -1;

    snprintf(text, sizeof(text), "127.0.0.1:%u", s->port);
    ck_assert_int_eq(rs_address_parse(text, -1, &to, NULL), 0);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&to.sa, to.len), 0);
    return fd;
}

static void put(int fd, const char *data, size_t n)
{
    while (n > 0) {
        ssize_t done = send(fd, data, n, MSG_NOSIGNAL);

        if (done <= 0)
            return; /* the server may have had enough */
        data += done;
        n -= (size_t)done;
    }
}

/* Sends bytes, reads to the end of the connection. */
static char *raw(const struct server *s, const char *data, size_t n)
{
    rs_auto(rs_closep) int fd = connect_to(s);
    struct rs_buf out = {0};
    ssize_t got;

    put(fd, data, n);
    while ((got = read(fd, rs_buf_reserve(&out, 4096), 4096)) > 0)
        rs_buf_commit(&out, (size_t)got);
    return rs_buf_steal(&out);
}

static int call(const struct server *s, const char *method, const char *path, const char *body,
                struct rs_http_answer *ret)
{
    struct rs_error err = {0};

    ck_assert_msg(rs_http_call(&(struct rs_http_call){.base = s->base,
                                                      .method = method,
                                                      .path = path,
                                                      .body = body,
                                                      .len = body ? strlen(body) : 0,
                                                      .type = "application/json"},
                               ret, &err) == 0,
                  "%s", err.msg);
    return ret->status;
}

#define TEXT "text/plain; charset=utf-8"
#define JSON "application/json; charset=utf-8"
static const struct {
    const char *method, *path, *send;
    int status;
    const char *type, *body; /* body: begins with, "=" in front: is exactly */
} calls[] = {
    {"GET", "/-/healthz", NULL, 200, TEXT, "=success"},
    {"GET", "/api/gcs_healthz", NULL, 200, TEXT, "=success"},
    {"HEAD", "/api/gcs_healthz", NULL, 200, TEXT, "="},
    {"GET", "/api/version", NULL, 200, JSON, "{\"version\":\"4\",\"ray_version\":\"2.60.0\","},
    {"GET", "/api/ray/version", NULL, 200, JSON,
     "={\"version\":\"4\",\"ray_version\":\"2.60.0\",\"ray_commit\":\"abc\",\"session_name\":"
     "\"session_1\",\"rserve_version\":\"1.2.3\",\"rserve_commit\":\"abc\",\"driver_socket\":"
     "null}"},
    {"GET", "/api/serve/applications/", NULL, 200, JSON,
     "={\"http_options\":{\"host\":\"h\"},\"applications\":{\"one\":{\"name\":\"one\",\"source\":"
     "\"declarative\"},\"two\":{\"name\":\"two\",\"source\":\"imperative\"}},\"target_capacity\":"
     "null}"},
    {"GET", "/api/serve/applications", NULL, 200, JSON, "{\"http_options\""},
    {"GET", "/api/serve/applications/?api_type=", NULL, 200, JSON, "{\"http_options\""},
    {"GET", "/api/serve/applications/?api_type=DECLARATIVE", NULL, 200, JSON,
     "={\"http_options\":{\"host\":\"h\"},\"applications\":{\"one\":{\"name\":\"one\",\"source\":"
     "\"declarative\"}},\"target_capacity\":null}"},
    {"GET", "/api/serve/applications?api_type=imperative", NULL, 200, JSON,
     "={\"http_options\":{\"host\":\"h\"},\"applications\":{\"two\":{\"name\":\"two\",\"source\":"
     "\"imperative\"}},\"target_capacity\":null}"},
    {"GET", "/api/serve/applications/?api_type=both", NULL, 400, TEXT,
     "=Invalid 'api_type' value: 'both'. Must be one of: imperative, declarative"},
    {"PUT", "/api/serve/applications/", "{\"applications\":[]}", 200, "", "="},
    {"PUT", "/api/serve/applications/", "{\"applications\"", 400, TEXT, "body:1:"},
    {"PUT", "/api/serve/applications/", "", 400, TEXT, "body:"},
    {"PUT", "/api/serve/applications/", "[]", 503, TEXT, "=busy"},
    {"DELETE", "/api/serve/applications/", NULL, 200, "", "="},
    {"POST", "/api/serve/applications/", "{}", 405, JSON,
     "={\"error\":\"/api/serve/applications/ does not know the method POST; it knows GET, HEAD, "
     "PUT, "
     "DELETE\"}"},
    {"PUT", "/metrics", "x", 405, JSON, "{\"error\":\"/metrics does not know"},
    {"GET", "/nowhere", NULL, 404, JSON,
     "={\"error\":\"no such path: /nowhere (GET /api lists them)\"}"},
    {"GET", "/api/serve/applications//", NULL, 404, JSON, "{"},
    {"GET", "/api/serve/applicationsx", NULL, 404, JSON, "{"},
    {"GET", "/%ff%0a%22", NULL, 404, JSON, "{\"error\":\"no such path: /\\uFFFD \\\" (GET"},
#define SCALE "/api/v1/applications/one/deployments/d%20e/scale"
    {"POST", SCALE, "{\"target_num_replicas\": 3}", 200, JSON,
     "={\"message\": \"Scaling request received. Deployment will get scaled asynchronously.\"}"},
    {"POST", SCALE "/", "{\"target_num_replicas\": 0}", 200, JSON, "{\"message\": "},
    {"POST", SCALE, "{\"target_num_replicas\": 7}", 412, JSON,
     "={\"error\": \"no \\\"such\\\" thing\"}"},
    {"POST", "/api/v1/applications/two/deployments/d/scale", "{\"target_num_replicas\": 3}", 404,
     JSON, "{\"error\": \"no "},
    {"POST", SCALE, "{\"target_num_replicas\": -1}", 400, JSON,
     "{\"error\": \"Invalid request body: target_num_replicas: expected an integer from 0 to "},
    {"POST", SCALE, "{\"target_num_replicas\": true}", 400, JSON, "{\"error\": \"Invalid request"},
    {"POST", SCALE, "{\"target_num_replicas\": 1e3}", 400, JSON, "{\"error\": \"Invalid request"},
    {"POST", SCALE, "{\"replicas\": 3}", 400, JSON, "{\"error\": \"Invalid request body: "},
    {"POST", SCALE, "[3]", 400, JSON, "{\"error\": \"Invalid request body: "},
    {"POST", SCALE, "", 400, JSON, "{\"error\": \"Invalid request body: "},
    {"GET", SCALE, NULL, 405, JSON, "{\"error\":\""},
    {"POST", "/api/v1/applications//deployments/d/scale", "{}", 404, JSON,
     "{\"error\":\"no such path"},
    {"POST", "/api/v1/applications/a/b/deployments/d/scale", "{}", 404, JSON, "{"},
    {"POST", "/api/v1/applications/a/deployments/", "{}", 405, JSON, "{"},
    {"GET", "/api/v1/applications/a/deployments/b/c", NULL, 404, JSON, "{\"error\":\"no such"},
    {"GET", "/api/v1/events", NULL, 200, JSON, "={\"app\":null,\"limit\":10}"},
    {"GET", "/api/v1/events?limit=&app=a%20b", NULL, 200, JSON, "={\"app\":\"a b\",\"limit\":10}"},
    {"GET", "/api/v1/events?limit=100", NULL, 200, JSON, "={\"app\":null,\"limit\":100}"},
    {"GET", "/api/v1/events?limit=101", NULL, 400, JSON,
     "={\"error\":\"?limit=: expected a number from 1 to 100, got '101'\"}"},
    {"GET", "/api/v1/events?limit=99999999999999999999", NULL, 400, JSON, "{\"error\":"},
    {"GET", "/api/v1/events?limit=1x", NULL, 400, JSON, "{\"error\":"},
    {"GET", "/api/v1/events?limit=%201", NULL, 400, JSON, "{\"error\":"},
    {"GET", "/api/v1/events?fail=0", NULL, 400, JSON, "={\"error\":\"so it fails\"}"},
    {"GET", "/api/v1/events?fail=1", NULL, 404, JSON, "{\"error\":"},
    {"GET", "/api/v1/events?fail=2", NULL, 409, JSON, "{\"error\":"},
    {"GET", "/api/v1/events?fail=3", NULL, 507, JSON, "{\"error\":"},
    {"GET", "/api/v1/events?fail=4", NULL, 504, JSON, "{\"error\":"},
    {"GET", "/api/v1/events?fail=5", NULL, 500, JSON, "{\"error\":"},
    {"POST", "/api/v1/plan", "{}", 501, JSON,
     "={\"error\":\"/api/v1/plan is not known to this rserve\"}"},
    {"GET", "/api", NULL, 200, JSON, "[{\"method\":\"GET\",\"path\":\"/api\","},
};

START_TEST(answers)
{
    struct rs_http_answer got = {0};
    struct server s = {0};

    start(&s);
    ck_assert_int_eq(call(&s, calls[_i].method, calls[_i].path, calls[_i].send, &got),
                     calls[_i].status);
    ck_assert_str_eq(got.type, calls[_i].type);
    if (calls[_i].body[0] == '=')
        ck_assert_str_eq(rs_buf_text(&got.body), calls[_i].body + 1);
    else
        ck_assert_msg(strncmp(rs_buf_text(&got.body), calls[_i].body, strlen(calls[_i].body)) == 0,
                      "%s", rs_buf_text(&got.body));
    rs_http_answer_fini(&got);
    stop(&s);
}
END_TEST

START_TEST(changes_reach_the_caller)
{
    static const char config[] = "{\"applications\": [{\"name\": \"x\"}]}";
    struct rs_http_answer got = {0};
    struct server s = {0};

    start(&s);
    ck_assert_int_eq(call(&s, "PUT", "/api/serve/applications/", config, &got), 200);
    rs_http_answer_fini(&got);
    ck_assert_int_eq(call(&s, "DELETE", "/api/serve/applications/", NULL, &got), 200);
    rs_http_answer_fini(&got);
    ck_assert_int_eq(call(&s, "DELETE", "/api/v1/applications/a%20b", NULL, &got), 200);
    rs_http_answer_fini(&got);
    ck_assert_int_eq(call(&s, "DELETE", "/api/v1/applications/x", NULL, &got), 404);
    ck_assert_str_eq(rs_buf_text(&got.body), "{\"error\":\"there is none\"}");
    rs_http_answer_fini(&got);
    ck_assert_int_eq(call(&s, "POST", SCALE, "{\"target_num_replicas\": 4}", &got), 200);
    rs_http_answer_fini(&got);
    stop(&s);
    ck_assert_int_eq(s.n_applied, 1);
    ck_assert_str_eq(s.applied, config);
    ck_assert_int_eq(s.n_deleted, 11);
    ck_assert_int_eq(s.scaled, 4);
}
END_TEST

START_TEST(metrics_text)
{
    static const char *const lines[] = {
        "\nray_t_total 7.0\n",
        "\nprocess_resident_memory_bytes ",
        "\n# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total ",
        "\nprocess_open_fds ",
        "\nprocess_start_time_seconds ",
    };
    struct rs_http_answer got = {0};
    struct server s = {0};
    const char *started;

    start(&s);
    ck_assert_int_eq(call(&s, "GET", "/metrics", NULL, &got), 200);
    ck_assert_str_eq(got.type, "text/plain; version=0.0.4; charset=utf-8");
    for (size_t i = 0; i < RS_COUNT(lines); i++)
        ck_assert_msg(strstr(rs_buf_text(&got.body), lines[i]), "%s in %s", lines[i],
                      rs_buf_text(&got.body));
    started = strstr(rs_buf_text(&got.body), lines[4]);
    ck_assert_double_lt(fabs(strtod(started + strlen(lines[4]), NULL) - (double)time(NULL)), 100);
    rs_http_answer_fini(&got);
    stop(&s);
    ck_assert_int_eq(s.n_collected, 1);
}
END_TEST

START_TEST(unready)
{
    struct rs_http_answer got = {0};
    struct server s = {0};

    start_with(&s, "127.0.0.1", NULL, &ops_unready, 0);
    ck_assert_int_eq(call(&s, "GET", "/api/serve/applications/", NULL, &got), 503);
    rs_http_answer_fini(&got);
    ck_assert_int_eq(call(&s, "GET", "/metrics", NULL, &got), 200);
    rs_http_answer_fini(&got);
    stop(&s);
}
END_TEST

#define ALIVE "Host: localhost\r\n"
#define HOST ALIVE "Connection: close\r\n"
static const struct {
    const char *request;
    const char *begin, *has; /* of the answer; begin NULL: none at all */
} raws[] = {
    {"DELETE /api/serve/applications/ HTTP/1.1\r\n" HOST "Origin: http://evil.example\r\n\r\n",
     "HTTP/1.1 403 ", "{\"error\":\"a page of http://evil.example may not change"},
    {"PUT /api/serve/applications/ HTTP/1.1\r\n" HOST
     "Origin: http://evil.example\r\nContent-Length: 2\r\n\r\n{}",
     "HTTP/1.1 403 ", "Origin"},
    {"GET /metrics HTTP/1.1\r\nHost: evil.example:8265\r\nConnection: close\r\n\r\n",
     "HTTP/1.1 403 ", "got evil.example:8265\"}"},
    {"GET /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 400 ", ""},
    {"GET /-/healthz HTTP/1.0\r\n\r\n", "HTTP/1.1 200 ", "success"},
    {"POST /api/serve/applications/ HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\n{}",
     "HTTP/1.1 405 ", "\r\nAllow: GET, HEAD, PUT, DELETE\r\n"},
    {"OPTIONS /api/serve/applications/ HTTP/1.1\r\n" HOST "Origin: http://evil.example\r\n\r\n",
     "HTTP/1.1 204 ", "\r\nAllow: GET, HEAD, PUT, DELETE, OPTIONS\r\n"},
    {"PUT /api/serve/applications/ HTTP/1.1\r\n" HOST
     "Expect: 100-continue\r\nContent-Length: 1001\r\n\r\n",
     "HTTP/1.1 413 ", "{\"error\":\"expected a body of at most 1000 bytes\"}"},
    {"PUT /api/serve/applications/ HTTP/1.1\r\n" HOST
     "Content-Length: 99999999999999999999999999\r\n\r\n",
     "HTTP/1.1 4", ""},
    {"PUT /api/serve/applications/ HTTP/1.1\r\n" HOST
     "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
     "HTTP/1.1 200 ", ""},
    {"PUT /api/serve/applications/ HTTP/1.1\r\n" HOST "Content-Length: 20\r\n\r\n{}", NULL, ""},
    {"\x16\x03\x01\x02\x01\xfc\x03\x03\r\n\r\n", NULL, ""},
    {"GET /-/healthz HTTP/1.1\r\n" ALIVE "\r\nGET /api/gcs_healthz HTTP/1.1\r\n" HOST "\r\n",
     "HTTP/1.1 200 ", "success"},
};

START_TEST(raw_requests)
{
    rs_auto(rs_freep) char *got = NULL;
    struct server s = {0};

    start_with(&s, "127.0.0.1", NULL, &ops, raws[_i].begin ? 0 : 1);
    got = raw(&s, raws[_i].request, strlen(raws[_i].request));
    stop(&s);
    if (!raws[_i].begin) {
        ck_assert_str_eq(got, "");
        ck_assert_int_eq(s.n_applied, 0);
        return;
    }
    ck_assert_msg(strncmp(got, raws[_i].begin, strlen(raws[_i].begin)) == 0, "%s", got);
    ck_assert_msg(strstr(got, raws[_i].has), "%s", got);
    ck_assert_int_eq(s.n_deleted, 0);
}
END_TEST

/* The size is known before the body, or only once there is too much of it. */
START_TEST(oversize)
{
    static const char *const headers[] = {
        "PUT /api/serve/applications/ HTTP/1.1\r\n" HOST "Content-Length: 3000\r\n\r\n",
        "PUT /api/serve/applications/ HTTP/1.1\r\n" HOST
        "Transfer-Encoding: chunked\r\n\r\nbb8\r\n",
    };
    struct rs_buf request = {0};
    rs_auto(rs_freep) char *got = NULL;
    struct server s = {0};

    rs_buf_puts(&request, headers[_i]);
    for (int i = 0; i < 3000; i++)
        rs_buf_puts(&request, " ");
    rs_buf_puts(&request, _i ? "\r\n0\r\n\r\n" : "");
    start(&s);
    got = raw(&s, rs_buf_head(&request), rs_buf_len(&request));
    stop(&s);
    ck_assert_msg(strncmp(got, "HTTP/1.1 413 ", 13) == 0, "%s", got);
    ck_assert_int_eq(s.n_applied, 0);
    rs_buf_fini(&request);
}
END_TEST

/* What goes on and on is not read to its end. */
START_TEST(endless_body)
{
    static const char chunk[] = "100\r\n"
                                "................................................................"
                                "................................................................"
                                "................................................................"
                                "................................................................"
                                "\r\n";
    static const char head[] =
        "PUT /api/serve/applications/ HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n";
    struct server s = {0};
    int sent = 0, fd;

    start(&s);
    fd = connect_to(&s);
    put(fd, head, sizeof(head) - 1);
    while (sent < 1000000 && send(fd, chunk, sizeof(chunk) - 1, MSG_NOSIGNAL) > 0)
        sent++;
    ck_assert_int_lt(sent, 1000000);
    close(fd);
    stop(&s);
    ck_assert_int_eq(s.n_applied, 0);
}
END_TEST

/* Many clients that stop amid their requests are in nobody's way. */
START_TEST(slow_clients)
{
    struct rs_http_answer got = {0};
    struct server s = {0};
    int fds[50];

    start(&s);
    for (size_t i = 0; i < RS_COUNT(fds); i++) {
        fds[i] = connect_to(&s);
        put(fds[i], "PUT /api/serve/applications/ HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\n{",
            i);
    }
    ck_assert_int_eq(call(&s, "GET", "/-/healthz", NULL, &got), 200);
    rs_http_answer_fini(&got);
    for (size_t i = 0; i < RS_COUNT(fds); i++)
        close(fds[i]);
    ck_assert_int_eq(call(&s, "GET", "/-/healthz", NULL, &got), 200);
    rs_http_answer_fini(&got);
    stop(&s);
    ck_assert_int_eq(s.n_applied, 0);
}
END_TEST

START_TEST(idle_clients_are_cut)
{
    struct server s = {0};
    struct pollfd p = {.events = POLLIN};
    char c;

    start_with(&s, "127.0.0.1", NULL, &ops, 1);
    p.fd = connect_to(&s);
    put(p.fd, "GET /", 5);
    ck_assert_int_eq(poll(&p, 1, 20000), 1);
    ck_assert_int_le(read(p.fd, &c, 1), 0);
    close(p.fd);
    stop(&s);
}
END_TEST

/* Two requests at once on one connection, a body each, answered in order. */
START_TEST(keep_alive)
{
    static const char two[] =
        "PUT /api/serve/applications/ HTTP/1.1\r\n" ALIVE "Content-Length: 2\r\n\r\n{}"
        "PUT /api/serve/applications/ HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\n[]";
    rs_auto(rs_freep) char *got = NULL;
    struct server s = {0};
    const char *second;

    start(&s);
    got = raw(&s, two, sizeof(two) - 1);
    stop(&s);
    ck_assert_msg(strncmp(got, "HTTP/1.1 200 ", 13) == 0, "%s", got);
    second = strstr(got + 1, "HTTP/1.1 503 ");
    ck_assert_msg(second && strstr(second, "\r\n\r\nbusy"), "%s", got);
}
END_TEST

START_TEST(a_taken_port)
{
    struct rs_api_conf conf = {.host = "127.0.0.1"};
    struct rs_api *api = NULL;
    struct rs_error err = {0};
    struct server s = {0};

    start(&s);
    conf.port = s.port;
    ck_assert_int_eq(rs_api_new(&api, s.loop, &conf, &ops, &s, &err), -1);
    ck_assert_msg(strstr(err.msg, "is in use by pid ") &&
                      strstr(err.msg, "): stop it or use --dashboard-port"),
                  "%s", err.msg);
    stop(&s);
}
END_TEST

/* Beyond loopback: a peer on this machine may go on as before. */
START_TEST(open_listener)
{
    struct rs_http_answer got = {0};
    struct server s = {0};

    start_with(&s, "0.0.0.0", _i ? "t0k" : NULL, &ops, 0);
    ck_assert_int_eq(call(&s, "DELETE", "/api/serve/applications/", NULL, &got), 200);
    rs_http_answer_fini(&got);
    stop(&s);
}
END_TEST

RS_CHECK_MAIN("api", tcase_add_loop_test(tc, answers, 0, RS_COUNT(calls));
              tcase_add_test(tc, changes_reach_the_caller); tcase_add_test(tc, metrics_text);
              tcase_add_test(tc, unready); tcase_add_loop_test(tc, raw_requests, 0, RS_COUNT(raws));
              tcase_add_loop_test(tc, oversize, 0, 2); tcase_add_test(tc, endless_body);
              tcase_add_test(tc, slow_clients); tcase_add_test(tc, idle_clients_are_cut);
              tcase_add_test(tc, keep_alive); tcase_add_test(tc, a_taken_port);
              tcase_add_loop_test(tc, open_listener, 0, 2);)
