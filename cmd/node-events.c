/* What processes, the data plane and the head say: to the agent, or on to where it belongs. */
#include "cmd/node-internal.h"

#include "cmd/verb.h"
#include "net/api/process.h"

#include <signal.h>
#include <string.h>

enum { LAST_WORD_MS = 500 }; /* for what a dead process had written */

/* --- actors and tasks: between processes and the head ------------------------------------------- */

static void core_answer(struct rs_node *n, const char *process, uint64_t stream, const json_t *msg)
{
    rs_dataplane_tell(n->dataplane, process, RS_MSG_CORE_REPLY, stream, msg);
}

static void core_refuse(struct rs_node *n, const char *process, uint64_t stream, const char *kind,
                        const char *why)
{
    rs_auto(rs_json_decrefp) json_t *reply = json_pack("{s:s, s:s}", "kind", kind, "error", why);

    if (stream)
        core_answer(n, process, stream, reply);
    else
        rs_log_warn("the head is not told what a process says", "process=%s reason=\"%s\"", process,
                    why);
}

/* CORE of a process here. */
static void core_up(struct rs_node *n, const char *process, uint64_t stream, json_t *msg)
{
    rs_auto(rs_json_decrefp) json_t *up = NULL;
    struct rs_error err = {0};

    if (strcmp(rs_json_str(msg, "op", ""), "waiting") == 0) {
        rs_agent_waiting(n->agent, process, rs_json_bool(msg, "waiting", false), rs_node_now(n));
    } else if (n->head) {
        up =
            json_pack("{s:s, s:I, s:O}", "from", process, "stream", (json_int_t)stream, "msg", msg);
        if (rs_conn_offer_json(n->head, RS_MSG_CORE_UP, 0, up, &err) < 0)
            core_refuse(n, process, stream, "ValueError", err.msg);
    } else if (stream) {
        core_refuse(n, process, stream, "ConnectionError", "the node has no head at the moment");
    }
}

/* A process that may have asked the head for things is gone. */
static void core_gone(struct rs_node *n, const char *process)
{
    rs_auto(rs_json_decrefp) json_t *up = json_pack("{s:s}", "gone", process);

    if (n->head)
        rs_conn_send_json(n->head, RS_MSG_CORE_UP, 0, up);
}

struct order_for {
    struct rs_node *node;
    const char *app, *deployment;
    const json_t *msg;
};

static void order_one(const struct rs_dataplane_stat *s, void *arg)
{
    const struct order_for *o = arg;

    if (s->replica_id && strcmp(s->app, o->app) == 0 && strcmp(s->deployment, o->deployment) == 0)
        core_answer(o->node, s->replica_id, 0, o->msg);
}

static void core_down(struct rs_node *n, const json_t *msg)
{
    const char *to = rs_json_str(msg, "to", NULL), *kill = rs_json_str(msg, "kill", NULL);
    const char *replace = rs_json_str(msg, "replace", NULL);
    struct order_for o = {.node = n,
                          .app = rs_json_str(msg, "app", ""),
                          .deployment = rs_json_str(msg, "deployment", ""),
                          .msg = json_object_get(msg, "msg")};

    if (replace)
        rs_agent_replace(n->agent, replace, rs_node_now(n));
    else if (kill)
        rs_agent_kill_deployment(n->agent, o.app, kill, "it was killed by `ray.kill`",
                                 rs_node_now(n));
    else if (to)
        core_answer(n, to, (uint64_t)rs_json_int(msg, "stream", 0), o.msg);
    else
        rs_dataplane_stats(n->dataplane, order_one, &o);
}

/* --- events -------------------------------------------------------------------------------------- */

/* What was under way when the replica ended is not taken any more: nobody would drop it. */
static void on_stats(struct rs_node *n, const char *replica_id, const json_t *msg)
{
    const json_t *metrics = json_object_get(msg, "metrics");
    struct rs_error why = {0};

    if (json_object_get(msg, "multiplexed"))
        rs_agent_tells_models(n->agent, replica_id);
    n->dirty |= rs_advice_stats(n->advice, replica_id, msg);
    if (!n->metrics || !json_is_array(metrics) || !rs_map_get(&n->lines, replica_id))
        return;
    if (rs_metrics_report(n->metrics, replica_id, metrics, &why) > 0)
        rs_log_warn("not all user metrics are exported", "replica=%s reason=\"%s\"", replica_id,
                    why.msg);
}

#define HEAD_AWAY "the head of this node is away; try again later"
#define VALUES "values" /* who asks, when it is the node itself; no replica has this name */

/* A question for the head: its answer finds the way back by the name of who asked. */
static void ask_head(struct rs_node *n, const char *from, uint64_t stream, json_t *ask)
{
    rs_auto(rs_json_decrefp) json_t *msg = NULL, *answer = NULL;
    struct rs_error err = {0};
    int r;

    msg = json_pack("{s:s, s:I, s:O}", "from", from, "stream", (json_int_t)stream, "ask", ask);
    if (!n->head && !n->within)
        r = rs_error_set(&err, RS_NOT_FOUND, HEAD_AWAY);
    else if (rs_asks_put(&n->asks, msg) < 0)
        r = rs_error_set(&err, RS_NO_ROOM, "%d questions wait for the head", RS_ASKS_MAX);
    else
        r = n->head ? rs_conn_offer_json(n->head, RS_MSG_ASK_HEAD, 0, msg, &err) : 0;
    if (r == 0)
        return;
    rs_asks_answered(&n->asks, from, stream);
    answer = json_pack("{s:s, s:s}", "error", err.msg, "kind", "RayServeException");
    rs_dataplane_tell(n->dataplane, from, RS_MSG_ANSWER, stream, answer);
}

static void ask_again(const json_t *msg, void *arg)
{
    struct rs_node *n = arg;

    rs_conn_send_json(n->head, RS_MSG_ASK_HEAD, 0, msg);
}

static void refuse_ask(const json_t *msg, void *arg)
{
    struct rs_node *n = arg;
    rs_auto(rs_json_decrefp) json_t *answer =
        json_pack("{s:s, s:s}", "error", HEAD_AWAY, "kind", "RayServeException");

    rs_dataplane_tell(n->dataplane, rs_json_str(msg, "from", ""), RS_MSG_ANSWER,
                      (uint64_t)rs_json_int(msg, "stream", 0), answer);
}

static void ask_for_value(uint64_t number, const json_t *ask, void *arg)
{
    struct rs_node *n = arg;
    rs_auto(rs_json_decrefp) json_t *msg =
        json_pack("{s:s, s:I, s:o}", "from", VALUES, "stream", (json_int_t)number, "ask",
                  json_deep_copy(ask));

    rs_conn_send_json(n->head, RS_MSG_ASK_HEAD, 0, msg);
}

const struct rs_values_ops rs_node_values_ops = {.ask = ask_for_value, .ready = rs_node_build};

static void on_answer_of_head(struct rs_node *n, const json_t *msg)
{
    const char *to = rs_json_str(msg, "from", NULL);
    const json_t *answer = json_object_get(msg, "answer");

    uint64_t number = (uint64_t)rs_json_int(msg, "stream", 0);

    if (to && strcmp(to, VALUES) == 0) {
        rs_values_answer(n->values, number, answer);
    } else if (to && answer) {
        rs_asks_answered(&n->asks, to, number);
        rs_dataplane_tell(n->dataplane, to, RS_MSG_ANSWER, number, answer);
    }
}

static void on_replica(const char *replica_id, enum rs_msg type, uint64_t stream, json_t *msg,
                       void *arg)
{
    struct rs_node *n = arg;

    if (n->closing)
        return;
    if (type == RS_MSG_HELLO && rs_drivers_hello(n->drivers, replica_id, msg))
        return;
    switch (type) {
    case RS_MSG_HELLO:
        rs_agent_heard(n->agent, replica_id, RS_HEARD_HELLO, stream, msg, rs_node_now(n));
        break;
    case RS_MSG_READY:
        rs_agent_heard(n->agent, replica_id, RS_HEARD_READY, stream, msg, rs_node_now(n));
        break;
    case RS_MSG_FAILED:
        rs_agent_heard(n->agent, replica_id, RS_HEARD_FAILED, stream, msg, rs_node_now(n));
        break;
    case RS_MSG_PONG:
        rs_agent_heard(n->agent, replica_id, RS_HEARD_PONG, stream, msg, rs_node_now(n));
        break;
    case RS_MSG_STATS:
        on_stats(n, replica_id, msg);
        break;
    case RS_MSG_ASK:
        ask_head(n, replica_id, stream, msg);
        break;
    case RS_MSG_CORE:
        core_up(n, replica_id, stream, msg);
        break;
    default:
        break;
    }
}

static void on_replica_gone(const char *replica_id, const char *why, void *arg)
{
    struct rs_node *n = arg;

    if (n->closing)
        return;
    core_gone(n, replica_id);
    if (rs_drivers_gone(n->drivers, replica_id))
        return;
    rs_agent_gone(n->agent, replica_id, why, rs_node_now(n));
    rs_node_line_down(n, replica_id);
}

static void on_replica_idle(const char *replica_id, void *arg)
{
    struct rs_node *n = arg;

    if (!n->closing)
        rs_agent_idle(n->agent, replica_id, rs_node_now(n));
}

/* The head may have to start replicas for it. */
static void on_load(bool urgent, void *arg)
{
    struct rs_node *n = arg;

    rs_agent_loaded(n->agent, rs_node_now(n));
    n->dirty |= urgent;
    n->busy = true;
}

static void on_choose(const char *app, const char *deployment, const json_t *router, uint64_t id,
                      json_t *question, void *arg)
{
    struct rs_node *n = arg;

    if (!n->closing)
        rs_advice_choose(n->advice, app, deployment, router, id, question);
}

const struct rs_dataplane_ops rs_node_dataplane_ops = {
    .on_replica = on_replica,
    .on_replica_gone = on_replica_gone,
    .on_replica_idle = on_replica_idle,
    .on_load = on_load,
    .on_choose = on_choose,
};

static void on_exit_of(const char *id, int status, const char *output, void *arg)
{
    struct rs_node *n = arg;
    struct rs_node_line *l = rs_map_get(&n->lines, id);
    struct rs_node_zygote *z;

    if (n->closing || rs_helpers_exited(rs_advice_helpers(n->advice), id, status, output))
        return;
    if (l && !l->ended) {
        l->ended = true;
        l->status = status;
        l->output = rs_strdup(output);
        rs_timer_start(&l->late, n->loop, rs_clock_now() + LAST_WORD_MS * RS_MS);
        return;
    }
    if (rs_envs_exited(n->envs, id, status, output))
        return;
    if (rs_map_get(&n->zygotes, id)) {
        rs_helpers_zygote_exited(rs_advice_helpers(n->advice), id);
        rs_agent_zygote_exited(n->agent, id, status, output, rs_node_now(n));
        z = rs_map_remove(&n->zygotes, id);
        if (z)
            rs_node_zygote_free(z);
        return;
    }
    rs_agent_exited(n->agent, id, status, output, rs_node_now(n));
}

const struct rs_keeper_ops rs_node_keeper_ops = {.on_exit = on_exit_of};

/* --- user code in the control path --------------------------------------------------------------- */

static int fork_helper(const char *zygote, const json_t *msg, int fds[3], void *arg,
                       struct rs_error *err)
{
    struct rs_node *n = arg;
    struct rs_node_zygote *z = rs_map_get(&n->zygotes, zygote);

    if (z && z->conn) {
        rs_conn_send_json_fds(z->conn, RS_MSG_FORK, 0, msg, fds, 3);
        return 0;
    }
    for (int i = 0; i < 3; i++)
        rs_closep(&fds[i]);
    return rs_error_set(err, RS_NOT_FOUND, "the zygote '%s' is gone", zygote);
}

static void on_decision(uint64_t question, const json_t *msg, void *arg)
{
    struct rs_node *n = arg;
    rs_auto(rs_json_decrefp) json_t *lost = NULL;
    struct rs_error err = {0};

    if (!n->head || n->closing ||
        rs_conn_offer_json(n->head, RS_MSG_DECISION, question, msg, &err) == 0)
        return;
    lost = json_pack("{s:s, s:s}", "app", rs_json_str(msg, "app", ""), "lost", err.msg);
    rs_conn_send_json(n->head, RS_MSG_DECISION, question, lost);
}

const struct rs_advice_ops rs_node_advice_ops = {.fork = fork_helper, .decision = on_decision};

/* Remembers the longest grace period that any application's deployment here has. Actors and workers of
 * tasks have none: what waits for them are requests. */
static void note_grace(struct rs_node *n, const json_t *target)
{
    size_t i, k;
    json_t *app, *d;

    n->grace_s = 0;
    json_array_foreach (json_object_get(target, "applications"), i, app) {
        json_array_foreach (json_object_get(app, "deployments"), k, d) {
            double s = rs_json_num(json_object_get(d, "config"), "graceful_shutdown_timeout_s", 20);

            if (json_object_size(json_object_get(d, "core")) == 0 && s > n->grace_s)
                n->grace_s = s;
        }
    }
}

void rs_node_send_lines(uint64_t stream, const json_t *msg, void *arg)
{
    struct rs_node *n = arg;
    struct rs_error err = {0};

    if (n->head && rs_conn_offer_json(n->head, RS_MSG_LOG_LINES, stream, msg, &err) < 0)
        rs_log_warn("lines of output are not told", "error=\"%s\"", err.msg);
}

static void head_gone(struct rs_node *n, const char *why)
{
    rs_conn_free(n->head);
    n->head = NULL;
    rs_node_logs_head_gone(n->logs);
    rs_values_head_gone(n->values);
    if (!n->within) {
        rs_asks_each(&n->asks, refuse_ask, n);
        rs_asks_clear(&n->asks);
    }
    if (n->ops.on_head_gone && !n->closing)
        n->ops.on_head_gone(why, n->arg);
}

/* What a Prometheus would read here. */
static void tell_metrics(struct rs_node *n, uint64_t number)
{
    rs_auto(rs_buf_fini) struct rs_buf text = {0};
    rs_auto(rs_json_decrefp) json_t *answer = NULL;
    struct rs_error err = {0};

    if (n->metrics)
        rs_metrics_text(n->metrics, &text);
    rs_process_text(&text);
    answer = json_pack("{s:s}", "text", rs_buf_text(&text));
    if (!answer || rs_conn_offer_json(n->head, RS_MSG_METRICS, number, answer, &err) < 0)
        rs_log_warn("the metrics of this node cannot be told", "error=\"%s\"",
                    answer ? err.msg : "they are not UTF-8");
}

static void on_head_frame(struct rs_conn *c, struct rs_frame *f, void *arg)
{
    struct rs_node *n = arg;
    rs_auto(rs_json_decrefp) json_t *msg = NULL;
    struct rs_error err = {0};
    int r = rs_frame_json(f, &msg, &err);

    (void)c;
    if (r == 0 && f->h.type == RS_MSG_TARGET) {
        note_grace(n, msg);
        r = rs_agent_target(n->agent, msg, rs_node_now(n), &err);
        if (r == 0 && n->ops.on_http)
            n->ops.on_http(json_object_get(msg, "http"), n->arg);
        rs_advice_target(n->advice);
    } else if (r == 0 && f->h.type == RS_MSG_POLICY) {
        rs_advice_policy(n->advice, f->h.stream, msg);
    } else if (r == 0 && f->h.type == RS_MSG_BUILD) {
        r = rs_agent_build(n->agent, msg, rs_node_now(n), &err);
    } else if (r == 0 && f->h.type == RS_MSG_LOGS) {
        rs_node_logs_asked(n->logs, f->h.stream, msg);
    } else if (r == 0 && f->h.type == RS_MSG_READ_METRICS) {
        tell_metrics(n, f->h.stream);
    } else if (r == 0 && f->h.type == RS_MSG_CORE_DOWN) {
        core_down(n, msg);
    } else if (r == 0 && f->h.type == RS_MSG_FAILED) {
        r = rs_error_set(&err, RS_CONFLICT, "the head refused this node: %s",
                         rs_json_str(msg, "error", "no reason given"));
    } else if (r == 0 && f->h.type == RS_MSG_ANSWER_HEAD) {
        on_answer_of_head(n, msg);
    } else if (r == 0 && f->h.type == RS_MSG_WELCOME) {
        rs_asks_each(&n->asks, ask_again, n);
        if (n->ops.on_joined)
            n->ops.on_joined(n->arg);
    } else if (r == 0) {
        r = rs_error_set(&err, RS_INVALID, "unexpected %s from the head", rs_msg_name(f->h.type));
    }
    if (r < 0)
        head_gone(n, err.msg);
}

static void on_head_close(struct rs_conn *c, const struct rs_error *why, void *arg)
{
    struct rs_node *n = arg;

    (void)c;
    head_gone(n, why->msg);
}

static const struct rs_conn_ops head_conn_ops = {
    .on_frame = on_head_frame,
    .on_close = on_head_close,
};

int rs_node_link(struct rs_node *n, int head_fd, struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *join = NULL;

    if (n->head) { /* the old one is gone, which was not seen yet */
        rs_conn_free(n->head);
        n->head = NULL;
        rs_node_logs_head_gone(n->logs);
        rs_values_head_gone(n->values);
    }
    if (rs_conn_new(&n->head, n->loop, head_fd, &head_conn_ops, n, err) < 0)
        return -1;
    n->within = rs_conn_within(n->head);
    join = json_pack("{s:i, s:s, s:s, s:s, s:s?, s:O, s:O}", "protocol", RS_WIRE_VERSION, "node_id",
                     n->node_id, "name", n->name, "version", rs_version(), "address", n->address,
                     "resources", n->resources, "labels", n->labels);
    rs_conn_send_json(n->head, RS_MSG_JOIN, 0, join);
    n->dirty = true;
    return 0;
}
