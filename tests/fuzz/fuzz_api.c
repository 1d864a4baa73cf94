/* Bytes that a client of the REST API sends, to a whole server: its guard, its routes, conditions and
 * bodies, which are read as configurations. An input that begins with 0xfe is the text of figures, one
 * that begins with 0xfd a header with tags. */
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/config/config.h"
#include "net/api/api.h"
#include "net/api/etag.h"
#include "net/api/snapshot.h"
#include "net/wire/tcp.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct rs_loop *loop;
static struct rs_api *api;
static struct rs_metrics *metrics;

/* --- what the API is joined to ------------------------------------------------------------------- */

static json_t *details(bool extended, void *arg)
{
    (void)arg;
    return json_pack("{s:{s:{s:s, s:s, s:{s:{s:s, s:[{s:s, s:s, s:{s:s}}]}}}}, s:{s:{s:{s:s}}}}",
                     "applications", "a", "name", "a", "status",
                     extended ? "RUNNING" : "DEPLOY_FAILED", "deployments", "D", "name", "D",
                     "replicas", "replica_id", "r", "node_id", "n", "rserve", "node", "host",
                     "rserve", "nodes", "n", "name", "host");
}

static int apply(const struct rs_api_call *call, struct rs_buf *error, int *status, void *arg)
{
    struct rs_config *config = NULL;
    struct rs_diags diags = {0};
    size_t len;
    const char *body = rs_api_body(call, &len);
    int r = rs_config_parse(&config, body, len, NULL, &diags);

    (void)status;
    (void)arg;
    assert(rs_api_who(call)[0]);
    if (r < 0)
        rs_diags_print(error, &diags);
    rs_diags_fini(&diags);
    rs_config_free(config);
    return r;
}

static int put_app(const struct rs_api_call *call, const char *app, struct rs_buf *error,
                   int *status, void *arg)
{
    assert(*app);
    return apply(call, error, status, arg);
}

static int delete_all(const struct rs_api_call *call, struct rs_buf *error, int *status, void *arg)
{
    (void)call;
    (void)error;
    (void)status;
    (void)arg;
    return 0;
}

static int delete_app(const struct rs_api_call *call, const char *app, struct rs_buf *error,
                      int *status, void *arg)
{
    (void)call;
    (void)arg;
    *status = 404;
    rs_buf_printf(error, "there is no '%s'", app);
    return -1;
}

static int scale(const struct rs_api_call *call, const char *app, const char *deployment,
                 unsigned replicas, struct rs_buf *error, int *status, void *arg)
{
    (void)call;
    (void)status;
    (void)arg;
    rs_buf_printf(error, "%s#%s: not %u", app, deployment, replicas);
    return -1;
}

static json_t *desired(void *arg)
{
    (void)arg;
    return json_pack("{s:{s:{s:[{s:s}]}}}", "config", "document", "applications", "name", "a");
}

static int last_change(const char *app, char *who, size_t size, double *when, void *arg)
{
    (void)app;
    (void)arg;
    snprintf(who, size, "somebody");
    *when = 0;
    return 0;
}

/* Every value of a query that rows ask for. */
static int asked(const struct rs_api_call *call, json_t **ret, struct rs_error *err, void *arg)
{
    int64_t n;

    (void)arg;
    if (rs_api_query_int(call, "limit", 0, 100, 7, &n, err) < 0)
        return -1;
    *ret = json_pack("{s:I, s:s?}", "n", (json_int_t)n, "app", rs_api_query(call, "app"));
    return 0;
}

static const struct rs_api_ops ops = {
    .details = details,
    .apply = apply,
    .put_app = put_app,
    .delete_all = delete_all,
    .delete_app = delete_app,
    .scale = scale,
    .desired = desired,
    .last_change = last_change,
    .events = asked,
    .why = asked,
};

/* ------------------------------------------------------------------------------------------------- */

static void start(void)
{
    struct rs_api_conf conf = {.host = "127.0.0.1", .body_max = 100000, .idle_s = 1};
    struct rs_error err = {0};

    conf.metrics = metrics = rs_metrics_new();
    assert(rs_loop_new(&loop, &err) == 0);
    assert(rs_api_new(&api, loop, &conf, &ops, NULL, &err) == 0);
}

static void ask(const uint8_t *data, size_t size)
{
    struct rs_address to;
    char text[32], answer[4096];
    rs_auto(rs_closep) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    size_t sent = 0;
    ssize_t n = -1;

    snprintf(text, sizeof(text), "127.0.0.1:%u", rs_api_port(api));
    assert(rs_address_parse(text, -1, &to, NULL) == 0);
    assert(connect(fd, (struct sockaddr *)&to.sa, to.len) == 0);
    assert(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    for (int turns = 0; n != 0 && turns < 3000; turns++) {
        ssize_t more = send(fd, data + sent, size - sent, MSG_NOSIGNAL);

        sent += more > 0 ? (size_t)more : 0;
        if (sent == size)
            shutdown(fd, SHUT_WR);
        assert(rs_loop_turn(loop, RS_MS) == 0);
        while ((n = recv(fd, answer, sizeof(answer), 0)) > 0)
            ;
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            break; /* reset: it had enough */
    }
}

static void figures(const uint8_t *data, size_t size)
{
    rs_auto(rs_freep) char *text = rs_strndup((const char *)data, size);
    rs_auto(rs_json_decrefp) json_t *all = rs_api_snapshot(text, NULL);

    assert(json_is_array(all));
}

static void tags(const uint8_t *data, size_t size)
{
    rs_auto(rs_freep) char *text = rs_strndup((const char *)data, size);

    assert(!rs_api_etag_named(text, NULL));
    (void)rs_api_etag_named(text, "\"0123456789abcdef0123456789abcdef\"");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!api)
        start();
    if (size > 0 && data[0] == 0xfe)
        figures(data + 1, size - 1);
    else if (size > 0 && data[0] == 0xfd)
        tags(data + 1, size - 1);
    else
        ask(data, size);
    return 0;
}
