/* Joins the agent to what acts.
 *
 * Every op of the agent is a few lines here: translate names, call supervise or the data plane.
 * Events go the other way. After each turn of the loop one hook does what is due: the agent's tick,
 * a report to the head, the end of a drain.
 */
#include "cmd/node.h"

#include "cmd/advice.h"
#include "cmd/drivers.h"
#include "cmd/envs.h"
#include "cmd/launch.h"
#include "cmd/probes.h"
#include "cmd/values.h"
#include "cmd/verb.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/base/map.h"
#include "core/config/deployment.h"
#include "net/wire/conn.h"
#include "sched/agent.h"
#include "sched/pyruntime/pyruntime.h"
#include "sched/supervise/guard.h"
#include "sched/supervise/keeper.h"
#include "sched/supervise/statedir.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

/* A report goes out at once on a change; while requests are under way its figures are kept fresh. */
enum { REPORT_EVERY_MS = 1000, REPORT_BUSY_MS = 200, REPORT_GAP_MS = 5 };
enum { LAST_WORD_MS = 500 }; /* for what a dead process had written */

struct zygote {
    struct rs_node *node;
    char *key, *app;
    struct rs_conn *conn; /* NULL: hung up */
};

struct rs_node {
    struct rs_loop *loop;
    struct rs_node_ops ops;
    void *arg;
    char *node_id, *name, *address;
    json_t *resources;
    struct rs_launch_conf launch;
    struct rs_statedir *state;
    struct rs_guard *guard;
    struct rs_capture_hub *hub;
    struct rs_keeper *keeper;
    struct rs_dataplane *dataplane;
    struct rs_drivers *drivers;
    struct rs_values *values;
    struct rs_advice *advice;
    struct rs_agent *agent;
    struct rs_envs *envs;
    struct rs_listener *peers;
    struct rs_conn *head;  /* NULL: away */
    struct rs_map zygotes; /* key -> struct zygote */
    struct rs_probes probes;
    struct rs_metrics *metrics;
    struct rs_map lines; /* replica id -> struct line, while its connection is up */
    struct rs_after hook;
    bool dirty, closing;
    bool busy; /* the last report told of requests under way */
    int64_t reported_at, reaped_at;
    int64_t report_cost; /* ns that the last report took to make */
    double grace_s;      /* longest graceful_shutdown_timeout_s of what was deployed */
    enum { SERVING, FINISHING, DRAINING, KILLING, DRAINED } phase;
    int64_t finish_by;
};

static int64_t now_of(const struct rs_node *n)
{
    (void)n;
    return rs_clock_now();
}

/* --- the agent's ops: zygotes -------------------------------------------------------------------- */

static void zygote_free(struct zygote *z)
{
    rs_conn_free(z->conn);
    free(z->key);
    free(z->app);
    free(z);
}

static void on_zygote_frame(struct rs_conn *c, struct rs_frame *f, void *arg)
{
    struct zygote *z = arg;
    struct rs_node *n = z->node;
    rs_auto(rs_json_decrefp) json_t *msg = NULL;
    rs_auto(rs_freep) char *key = rs_strdup(z->key); /* the zygote may go meanwhile */
    const char *replica_id;
    struct rs_error err = {0};
    pid_t pid;

    (void)c;
    if (rs_frame_json(f, &msg, &err) < 0) {
        rs_agent_zygote_gone(n->agent, key, err.msg, now_of(n));
        return;
    }
    replica_id = rs_json_str(msg, "replica_id", NULL);
    switch (f->h.type) {
    case RS_MSG_HELLO:
        rs_agent_zygote_hello(n->agent, key, msg, now_of(n));
        break;
    case RS_MSG_GRAPH:
        if (strcmp(rs_json_str(msg, "start", "fork"), "fork") != 0)
            rs_log_info("replicas start as fresh interpreters", "application=%s reason=\"%s\"",
                        z->app, rs_json_str(msg, "start_reason", ""));
        rs_agent_zygote_graph(n->agent, key, msg, now_of(n));
        break;
    case RS_MSG_FORKED:
        pid = (pid_t)rs_json_int(msg, "pid", 0);
        if (replica_id && rs_keeper_adopt(n->keeper, replica_id, pid, &err) < 0) {
            rs_log_warn("cannot watch a forked replica", "replica=%s pid=%d error=\"%s\"",
                        replica_id, (int)pid, err.msg);
            rs_keeper_forget(n->keeper, replica_id);
            rs_agent_exited(n->agent, replica_id, 0, err.msg, now_of(n));
            break;
        }
        rs_agent_zygote_forked(n->agent, key, msg, now_of(n));
        break;
    case RS_MSG_FAILED:
        if (replica_id) {
            rs_keeper_forget(n->keeper, replica_id);
            (void)rs_helpers_exited(rs_advice_helpers(n->advice), replica_id, 0, "");
        }
        rs_agent_zygote_failed(n->agent, key, msg, now_of(n));
        break;
    default:
        rs_error_set(&err, RS_INVALID, "unexpected %s from a zygote", rs_msg_name(f->h.type));
        rs_agent_zygote_gone(n->agent, key, err.msg, now_of(n));
        break;
    }
}

static void on_zygote_close(struct rs_conn *c, const struct rs_error *why, void *arg)
{
    struct zygote *z = arg;
    rs_auto(rs_freep) char *key = rs_strdup(z->key);

    rs_conn_free(c);
    z->conn = NULL;
    rs_agent_zygote_gone(z->node->agent, key, why->msg, now_of(z->node));
}

static const struct rs_conn_ops zygote_conn_ops = {
    .on_frame = on_zygote_frame,
    .on_close = on_zygote_close,
};

/* A connected pair of sockets, both closed on exec. */
static int socket_pair(int fds[2], struct rs_error *err)
{
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return rs_error_errno(err, errno, "cannot create a socket pair");
    return 0;
}

static int env_start(const struct rs_agent_env *conf, pid_t *pid, void *arg, struct rs_error *err)
{
    const struct rs_node *n = arg;

    return rs_envs_start(n->envs, conf, pid, err);
}

static const char *do_getenv(const char *name, void *arg)
{
    (void)arg;
    return getenv(name);
}

static int zygote_start(const struct rs_agent_zygote *conf, pid_t *pid, void *arg,
                        struct rs_error *err)
{
    struct rs_node *n = arg;
    struct zygote *z;
    struct rs_conn *conn = NULL;
    int fds[2], r;

    if (socket_pair(fds, err) < 0)
        return -1;
    r = rs_launch_zygote(&n->launch, n->keeper, conf, fds[1], pid, err);
    close(fds[1]);
    if (r < 0) {
        close(fds[0]);
        return -1;
    }
    z = rs_alloc(sizeof(*z));
    z->node = n;
    z->key = rs_strdup(conf->key);
    z->app = rs_strdup(conf->app);
    if (rs_conn_new(&conn, n->loop, fds[0], &zygote_conn_ops, z, err) < 0) {
        rs_keeper_kill(n->keeper, conf->key, SIGKILL);
        zygote_free(z);
        return -1;
    }
    z->conn = conn;
    z = rs_map_put(&n->zygotes, conf->key, z);
    if (z)
        zygote_free(z);
    return 0;
}

static void build_now(const char *key, const json_t *build, void *arg)
{
    struct rs_node *n = arg;
    struct zygote *z = rs_map_get(&n->zygotes, key);

    if (z && z->conn)
        rs_conn_send_json(z->conn, RS_MSG_BUILD, 0, build);
}

static void zygote_build(const char *key, const json_t *build, void *arg)
{
    struct rs_node *n = arg;

    if (!n->head || !rs_values_hold(n->values, key, build))
        build_now(key, build, n);
}

static void zygote_stop(const char *key, void *arg)
{
    struct rs_node *n = arg;
    struct zygote *z = rs_map_get(&n->zygotes, key);
    rs_auto(rs_json_decrefp) json_t *nothing = json_object();

    if (z && z->conn)
        rs_conn_send_json(z->conn, RS_MSG_STOP, 0, nothing);
}

/* --- the agent's ops: replicas ------------------------------------------------------------------- */

/* The connection of a replica that speaks frames. What it last said may still be on its way when its
 * process is seen to end: the end is told after the connection's, or a little later. */
struct line {
    struct rs_node *node;
    char *replica_id;
    bool ended; /* the process; how, follows */
    int status;
    char *output;
    struct rs_timer late;
};

static void line_free(struct line *l)
{
    if (!l)
        return;
    rs_timer_stop(&l->late);
    free(l->replica_id);
    free(l->output);
    free(l);
}

static struct line *line_take(struct rs_node *n, const char *replica_id)
{
    if (n->metrics)
        rs_metrics_unreport(n->metrics, replica_id);
    return rs_map_remove(&n->lines, replica_id);
}

/* The connection is gone, or is waited for no longer. */
static void line_down(struct rs_node *n, const char *replica_id)
{
    struct line *l = line_take(n, replica_id);

    if (l && l->ended)
        rs_agent_exited(n->agent, l->replica_id, l->status, l->output, now_of(n));
    line_free(l);
}

static int on_late(struct rs_timer *t)
{
    struct line *l = rs_container_of(t, struct line, late);
    rs_auto(rs_freep) char *id = rs_strdup(l->replica_id);

    line_down(l->node, id);
    return 0;
}

static void line_up(struct rs_node *n, const struct rs_agent_start *s, int fd)
{
    struct line *l = rs_alloc(sizeof(*l));

    l->node = n;
    l->replica_id = rs_strdup(s->replica_id);
    l->late.fn = on_late;
    line_free(rs_map_put(&n->lines, s->replica_id, l));
    rs_dataplane_attach(n->dataplane, s->app, s->deployment, s->replica_id, fd);
}

static char *label_of(const struct rs_agent_start *s)
{
    return rs_asprintf("%s#%s#%s", s->app, s->deployment, s->replica_id);
}

static int do_fork(const struct rs_agent_start *s, void *arg, struct rs_error *err)
{
    struct rs_node *n = arg;
    struct zygote *z = rs_map_get(&n->zygotes, s->zygote);
    rs_auto(rs_freep) char *label = label_of(s);
    rs_auto(rs_json_decrefp) json_t *msg = json_pack("{s:s}", "replica_id", s->replica_id);
    int pair[2], out = -1, errors = -1;

    if (!z || !z->conn)
        return rs_error_set(err, RS_NOT_FOUND, "the zygote of application %s is gone", s->app);
    if (socket_pair(pair, err) < 0)
        return -1;
    if (rs_keeper_expect(n->keeper, s->replica_id, label, &out, &errors, err) < 0) {
        close(pair[0]);
        close(pair[1]);
        return -1;
    }
    line_up(n, s, pair[0]);
    rs_conn_send_json_fds(z->conn, RS_MSG_FORK, 0, msg, (int[]){pair[1], out, errors}, 3);
    return 0;
}

static int do_spawn(const struct rs_agent_start *s, pid_t *pid, void *arg, struct rs_error *err)
{
    struct rs_node *n = arg;
    rs_auto(rs_freep) char *label = label_of(s);
    struct rs_launched where = {.fd = -1};
    int pair[2] = {-1, -1}, r;

    if (s->conf->kind != RS_KIND_HTTP && socket_pair(pair, err) < 0)
        return -1;
    r = rs_launch_replica(&n->launch, n->keeper, s, label, pair[1], &where, pid, err);
    rs_closep(&pair[1]);
    if (r < 0) {
        rs_closep(&pair[0]);
        free(where.socket_path);
        return -1;
    }
    if (s->conf->kind == RS_KIND_HTTP)
        rs_dataplane_attach_http(n->dataplane, s->app, s->deployment, s->replica_id, "127.0.0.1",
                                 where.port, where.socket_path, s->conf->strip_prefix);
    else
        line_up(n, s, pair[0]);
    rs_launch_note(&n->launch, s->replica_id, &where);
    return 0;
}

static void do_kill(const char *id, int signal, void *arg)
{
    struct rs_node *n = arg;

    rs_keeper_kill(n->keeper, id, signal);
}

static void do_tell(const char *replica_id, enum rs_agent_tell what, uint64_t stream,
                    const json_t *msg, void *arg)
{
    static const enum rs_msg types[] = {
        [RS_TELL_INIT] = RS_MSG_INIT,
        [RS_TELL_PING] = RS_MSG_PING,
        [RS_TELL_RECONFIGURE] = RS_MSG_RECONFIGURE,
        [RS_TELL_STOP] = RS_MSG_STOP,
    };
    struct rs_node *n = arg;

    rs_dataplane_tell(n->dataplane, replica_id, types[what], stream, msg);
}

static void do_admit(const char *replica_id, void *arg)
{
    struct rs_node *n = arg;

    rs_dataplane_admit(n->dataplane, replica_id);
}

static void do_retire(const char *replica_id, void *arg)
{
    struct rs_node *n = arg;

    rs_dataplane_retire(n->dataplane, replica_id);
}

static void do_detach(const char *replica_id, void *arg)
{
    struct rs_node *n = arg;

    line_free(line_take(n, replica_id));
    rs_advice_forget(n->advice, replica_id);
    rs_dataplane_detach(n->dataplane, replica_id);
    rs_launch_forget(&n->launch, replica_id);
}

static void do_remote(const char *app, const char *deployment, const char *node_id,
                      const char *address, unsigned slots, void *arg)
{
    struct rs_node *n = arg;

    rs_dataplane_remote(n->dataplane, app, deployment, node_id, address, slots);
}

static void do_routes(const struct rs_agent_routes *r, void *arg)
{
    struct rs_node *n = arg;
    struct rs_route_app *apps = rs_alloc((r->n_apps + 1) * sizeof(*apps));
    struct rs_route_deployment *deployments =
        rs_alloc((r->n_deployments + 1) * sizeof(*deployments));

    for (size_t i = 0; i < r->n_apps; i++)
        apps[i] = (struct rs_route_app){r->apps[i].name, r->apps[i].prefix, r->apps[i].ingress};
    for (size_t i = 0; i < r->n_deployments; i++) {
        const struct rs_agent_route_deployment *d = &r->deployments[i];

        deployments[i] = (struct rs_route_deployment){
            .app = d->app,
            .name = d->name,
            .max_ongoing = d->max_ongoing,
            .max_queued = d->max_queued,
            .backpressure_status = d->backpressure_status,
            .retry_after_s = d->retry_after_s,
            .router = d->router,
            .by_value = d->by_value,
            .failed = d->failed,
        };
        if (d->router)
            rs_helpers_want(rs_advice_helpers(n->advice), "router", d->app);
    }
    rs_dataplane_routes(n->dataplane, &(struct rs_routes){.apps = apps,
                                                          .n_apps = r->n_apps,
                                                          .deployments = deployments,
                                                          .n_deployments = r->n_deployments,
                                                          .populated = r->populated,
                                                          .draining = r->draining});
    free(apps);
    free(deployments);
}

/* --- the agent's ops: probes, the head ----------------------------------------------------------- */

static void on_probed(const char *replica_id, bool ok, const char *why, void *arg)
{
    struct rs_node *n = arg;

    rs_agent_probed(n->agent, replica_id, ok, why, now_of(n));
}

static void do_probe(const char *replica_id, const char *path, int64_t timeout, void *arg)
{
    struct rs_node *n = arg;
    const struct rs_launched *where = rs_launch_where(&n->launch, replica_id);
    struct rs_probe_conf conf = {.path = path, .deadline = rs_clock_now() + timeout, .once = true};

    if (!where)
        return;
    conf.host = "127.0.0.1";
    conf.port = where->port;
    conf.unix_path = where->socket_path;
    rs_probes_start(&n->probes, replica_id, &conf);
}

static void do_built(bool ok, const json_t *answer, void *arg)
{
    struct rs_node *n = arg;

    if (n->head)
        rs_conn_send_json(n->head, ok ? RS_MSG_GRAPH : RS_MSG_FAILED, 0, answer);
}

static void do_changed(void *arg)
{
    struct rs_node *n = arg;

    n->dirty = true;
}

static uint64_t do_random(void *arg)
{
    uint64_t value = 0;

    (void)arg;
    while (getrandom(&value, sizeof(value), 0) != sizeof(value))
        ;
    return value;
}

static const struct rs_agent_ops agent_ops = {
    .env_start = env_start,
    .getenv = do_getenv,
    .zygote_start = zygote_start,
    .zygote_build = zygote_build,
    .zygote_stop = zygote_stop,
    .fork = do_fork,
    .spawn = do_spawn,
    .kill = do_kill,
    .tell = do_tell,
    .admit = do_admit,
    .retire = do_retire,
    .detach = do_detach,
    .remote = do_remote,
    .routes = do_routes,
    .probe = do_probe,
    .built = do_built,
    .changed = do_changed,
    .random = do_random,
};

/* --- actors and tasks: between processes and the head ------------------------------------------- */

static void core_answer(struct rs_node *n, const char *process, uint64_t stream, const json_t *msg)
{
    rs_dataplane_tell(n->dataplane, process, RS_MSG_CORE_REPLY, stream, msg);
}

/* CORE of a process here. */
static void core_up(struct rs_node *n, const char *process, uint64_t stream, json_t *msg)
{
    rs_auto(rs_json_decrefp) json_t *up = NULL;

    if (strcmp(rs_json_str(msg, "op", ""), "waiting") == 0) {
        rs_agent_waiting(n->agent, process, rs_json_bool(msg, "waiting", false), now_of(n));
    } else if (n->head) {
        up =
            json_pack("{s:s, s:I, s:O}", "from", process, "stream", (json_int_t)stream, "msg", msg);
        rs_conn_send_json(n->head, RS_MSG_CORE_UP, 0, up);
    } else if (stream) {
        up = json_pack("{s:s, s:s}", "kind", "ConnectionError", "error",
                       "the node has no head at the moment");
        core_answer(n, process, stream, up);
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
    struct order_for o = {.node = n,
                          .app = rs_json_str(msg, "app", ""),
                          .deployment = rs_json_str(msg, "deployment", ""),
                          .msg = json_object_get(msg, "msg")};

    if (kill)
        rs_agent_kill_deployment(n->agent, o.app, kill, "it was killed by `ray.kill`", now_of(n));
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

    n->dirty |= rs_advice_stats(n->advice, replica_id, msg);
    if (!n->metrics || !json_is_array(metrics) || !rs_map_get(&n->lines, replica_id))
        return;
    if (rs_metrics_report(n->metrics, replica_id, metrics, &why) > 0)
        rs_log_warn("not all user metrics are exported", "replica=%s reason=\"%s\"", replica_id,
                    why.msg);
}

#define VALUES "values" /* who asks, when it is the node itself; no replica has this name */

/* A question for the head: its answer finds the way back by the name of who asked. */
static void ask_head(struct rs_node *n, const char *from, uint64_t stream, json_t *ask)
{
    rs_auto(rs_json_decrefp) json_t *msg =
        n->head
            ? json_pack("{s:s, s:I, s:O}", "from", from, "stream", (json_int_t)stream, "ask", ask)
            : json_pack("{s:s, s:s}", "error", "the head of this node is away; try again later",
                        "kind", "RayServeException");

    if (n->head)
        rs_conn_send_json(n->head, RS_MSG_ASK_HEAD, 0, msg);
    else
        rs_dataplane_tell(n->dataplane, from, RS_MSG_ANSWER, stream, msg);
}

static void ask_for_value(uint64_t number, const json_t *ask, void *arg)
{
    struct rs_node *n = arg;
    rs_auto(rs_json_decrefp) json_t *msg =
        json_pack("{s:s, s:I, s:o}", "from", VALUES, "stream", (json_int_t)number, "ask",
                  json_deep_copy(ask));

    rs_conn_send_json(n->head, RS_MSG_ASK_HEAD, 0, msg);
}

static const struct rs_values_ops values_ops = {.ask = ask_for_value, .ready = build_now};

static void on_answer_of_head(struct rs_node *n, const json_t *msg)
{
    const char *to = rs_json_str(msg, "from", NULL);
    const json_t *answer = json_object_get(msg, "answer");

    uint64_t number = (uint64_t)rs_json_int(msg, "stream", 0);

    if (to && strcmp(to, VALUES) == 0)
        rs_values_answer(n->values, number, answer);
    else if (to && answer)
        rs_dataplane_tell(n->dataplane, to, RS_MSG_ANSWER, number, answer);
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
        rs_agent_heard(n->agent, replica_id, RS_HEARD_HELLO, stream, msg, now_of(n));
        break;
    case RS_MSG_READY:
        rs_agent_heard(n->agent, replica_id, RS_HEARD_READY, stream, msg, now_of(n));
        break;
    case RS_MSG_FAILED:
        rs_agent_heard(n->agent, replica_id, RS_HEARD_FAILED, stream, msg, now_of(n));
        break;
    case RS_MSG_PONG:
        rs_agent_heard(n->agent, replica_id, RS_HEARD_PONG, stream, msg, now_of(n));
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
    rs_agent_gone(n->agent, replica_id, why, now_of(n));
    line_down(n, replica_id);
}

static void on_replica_idle(const char *replica_id, void *arg)
{
    struct rs_node *n = arg;

    if (!n->closing)
        rs_agent_idle(n->agent, replica_id, now_of(n));
}

/* The head may have to start a replica for it. */
static void on_load(bool starving, void *arg)
{
    struct rs_node *n = arg;

    n->dirty |= starving;
    n->busy = true;
}

static void on_choose(const char *app, const char *deployment, const json_t *router, uint64_t id,
                      json_t *question, void *arg)
{
    struct rs_node *n = arg;

    if (!n->closing)
        rs_advice_choose(n->advice, app, deployment, router, id, question);
}

static const struct rs_dataplane_ops dataplane_ops = {
    .on_replica = on_replica,
    .on_replica_gone = on_replica_gone,
    .on_replica_idle = on_replica_idle,
    .on_load = on_load,
    .on_choose = on_choose,
};

static void on_exit_of(const char *id, int status, const char *output, void *arg)
{
    struct rs_node *n = arg;
    struct line *l = rs_map_get(&n->lines, id);
    struct zygote *z;

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
        rs_agent_zygote_exited(n->agent, id, status, output, now_of(n));
        z = rs_map_remove(&n->zygotes, id);
        if (z)
            zygote_free(z);
        return;
    }
    rs_agent_exited(n->agent, id, status, output, now_of(n));
}

static const struct rs_keeper_ops keeper_ops = {.on_exit = on_exit_of};

/* --- user code in the control path --------------------------------------------------------------- */

static int fork_helper(const char *zygote, const json_t *msg, int fds[3], void *arg,
                       struct rs_error *err)
{
    struct rs_node *n = arg;
    struct zygote *z = rs_map_get(&n->zygotes, zygote);

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

    if (n->head && !n->closing)
        rs_conn_send_json(n->head, RS_MSG_DECISION, question, msg);
}

static const struct rs_advice_ops advice_ops = {.fork = fork_helper, .decision = on_decision};

/* Remembers the longest grace period that anything deployed here has. */
static void note_grace(struct rs_node *n, const json_t *target)
{
    size_t i, k;
    json_t *app, *d;

    n->grace_s = 0;
    json_array_foreach (json_object_get(target, "apps"), i, app) {
        json_array_foreach (json_object_get(app, "deployments"), k, d) {
            double s = rs_json_num(json_object_get(d, "config"), "graceful_shutdown_timeout_s", 20);

            n->grace_s = s > n->grace_s ? s : n->grace_s;
        }
    }
}

static void head_gone(struct rs_node *n, const char *why)
{
    rs_conn_free(n->head);
    n->head = NULL;
    rs_values_head_gone(n->values);
    if (n->ops.on_head_gone && !n->closing)
        n->ops.on_head_gone(why, n->arg);
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
        r = rs_agent_target(n->agent, msg, now_of(n), &err);
        if (r == 0 && n->ops.on_http)
            n->ops.on_http(json_object_get(msg, "http"), n->arg);
        rs_helpers_target(rs_advice_helpers(n->advice));
    } else if (r == 0 && f->h.type == RS_MSG_POLICY) {
        rs_advice_policy(n->advice, f->h.stream, msg);
    } else if (r == 0 && f->h.type == RS_MSG_BUILD) {
        r = rs_agent_build(n->agent, msg, now_of(n), &err);
    } else if (r == 0 && f->h.type == RS_MSG_CORE_DOWN) {
        core_down(n, msg);
    } else if (r == 0 && f->h.type == RS_MSG_FAILED) {
        r = rs_error_set(&err, RS_CONFLICT, "the head refused this node: %s",
                         rs_json_str(msg, "error", "no reason given"));
    } else if (r == 0 && f->h.type == RS_MSG_ANSWER_HEAD) {
        on_answer_of_head(n, msg);
    } else if (r == 0 && f->h.type == RS_MSG_WELCOME) {
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

    if (rs_conn_new(&n->head, n->loop, head_fd, &head_conn_ops, n, err) < 0)
        return -1;
    join = json_pack("{s:i, s:s, s:s, s:s, s:s?, s:O}", "protocol", RS_WIRE_VERSION, "node_id",
                     n->node_id, "name", n->name, "version", rs_version(), "address", n->address,
                     "resources", n->resources);
    rs_conn_send_json(n->head, RS_MSG_JOIN, 0, join);
    n->dirty = true;
    return 0;
}

/* --- what is due after each turn ----------------------------------------------------------------- */

static void add_figures(const struct rs_dataplane_stat *s, void *arg)
{
    struct rs_report *report = arg;

    if (s->replica_id) {
        struct rs_report_replica *r = rs_report_replica(report, s->replica_id);

        if (r) {
            r->in_flight = s->in_flight;
            r->done = s->done;
            r->errors = s->errors;
        }
    } else {
        struct rs_report_deployment *d = rs_report_deployment(report, s->app, s->deployment);

        if (d) {
            d->queued = s->queued;
            d->load_us = s->load_us;
            d->router_fallbacks = s->fallbacks;
        }
    }
}

static void send_report(struct rs_node *n, int64_t now)
{
    rs_auto(rs_report_freep) struct rs_report *report = rs_agent_report(n->agent, now);
    rs_auto(rs_json_decrefp) json_t *j = NULL;

    rs_dataplane_stats(n->dataplane, add_figures, report);
    n->busy = false;
    rs_advice_report(n->advice, report);
    for (size_t i = 0; i < report->n_replicas; i++)
        n->busy |= report->replicas[i].in_flight > 0;
    for (size_t i = 0; i < report->n_deployments; i++)
        n->busy |= report->deployments[i].queued > 0;
    j = rs_report_to_json(report);
    rs_conn_send_json(n->head, RS_MSG_REPORT, 0, j);
    n->dirty = false;
    n->reported_at = now;
    n->report_cost = now_of(n) - now;
}

static void drain_step(struct rs_node *n, int64_t now)
{
    if (n->phase == FINISHING && (rs_dataplane_ongoing(n->dataplane) == 0 || now >= n->finish_by)) {
        n->phase = DRAINING;
        rs_helpers_stop(rs_advice_helpers(n->advice));
        rs_agent_drain(n->agent, now);
    }
    if ((n->phase == DRAINING || n->phase == KILLING) && rs_agent_done(n->agent)) {
        n->phase = DRAINED;
        n->ops.on_drained(n->arg);
    }
}

/* ns. What is long to write is long to read: with very many processes reports come less often. */
static int64_t report_gap(const struct rs_node *n)
{
    int64_t gap = 6 * n->report_cost;

    gap = gap < REPORT_GAP_MS * RS_MS ? REPORT_GAP_MS * RS_MS : gap;
    gap = gap > REPORT_BUSY_MS * RS_MS ? REPORT_BUSY_MS * RS_MS : gap;
    return n->dirty ? gap : (n->busy ? REPORT_BUSY_MS : REPORT_EVERY_MS) * RS_MS;
}

static int64_t until(int64_t deadline, int64_t now)
{
    return deadline > now ? deadline - now : 0;
}

static int64_t on_turn(struct rs_after *a)
{
    struct rs_node *n = rs_container_of(a, struct rs_node, hook);
    int64_t now = rs_clock_now(), next, report_at;

    if (rs_agent_deadline(n->agent) <= now)
        rs_agent_tick(n->agent, now);
    if (now - n->reaped_at >= REPORT_EVERY_MS * RS_MS) {
        rs_keeper_reap(n->keeper);
        n->reaped_at = now;
    }
    if (n->phase != SERVING)
        drain_step(n, now);
    report_at = n->reported_at + report_gap(n);
    if (n->head && report_at <= now) {
        send_report(n, now);
        report_at = now + report_gap(n);
    }
    next = rs_agent_deadline(n->agent);
    next = report_at < next ? report_at : next;
    rs_helpers_tick(rs_advice_helpers(n->advice), now);
    if (rs_helpers_deadline(rs_advice_helpers(n->advice)) < next)
        next = rs_helpers_deadline(rs_advice_helpers(n->advice));
    if (n->phase == FINISHING && now + 10 * RS_MS < next)
        next = now + 10 * RS_MS;
    return until(next, now);
}

/* --- life ---------------------------------------------------------------------------------------- */

static void on_peer(int fd, void *arg)
{
    struct rs_node *n = arg;

    rs_dataplane_accept_peer(n->dataplane, fd);
}

static int open_state(struct rs_node *n, const struct rs_node_conf *conf, struct rs_error *err)
{
    char instance[33];
    uint64_t bits[2] = {do_random(NULL), do_random(NULL)};
    rs_auto(rs_freep) char *zip = NULL;

    if (rs_statedir_open(&n->state, conf->state_dir, "main", err) < 0)
        return -1;
    if (rs_statedir_put(n->state, "rserve.zip", rs_pyruntime_zip, rs_pyruntime_zip_size, &zip,
                        err) < 0)
        return -1;
    snprintf(instance, sizeof(instance), "%016llx%016llx", (unsigned long long)bits[0],
             (unsigned long long)bits[1]);
    if (setenv(RS_INSTANCE_ENV, instance, 1) < 0 ||
        setenv("RSERVE_VALUES", rs_statedir_values(n->state), 1) < 0)
        return rs_error_errno(err, errno, "setenv");
    rs_launch_init(&n->launch, conf->python, zip, rs_statedir_run(n->state));
    return rs_guard_new(&n->guard, instance, err);
}

static int start_processes(struct rs_node *n, const struct rs_node_conf *conf, struct rs_error *err)
{
    struct rs_capture_conf capture = {
        .dir = rs_statedir_logs(n->state),
        .echo = conf->echo,
        .colour = conf->quiet_terminal ? 0 : -1,
    };

    if (rs_subreaper(err) < 0 || rs_capture_hub_new(&n->hub, n->loop, &capture, err) < 0)
        return -1;
    if (n->ops.on_output)
        rs_capture_hub_sink(n->hub, n->ops.on_output, n->arg);
    return rs_keeper_new(&n->keeper, n->loop, n->hub, &keeper_ops, n, err);
}

static int start_agent(struct rs_node *n, struct rs_error *err)
{
    struct rs_agent_conf conf = {
        .node_id = n->node_id,
        .node_name = n->name,
        .resources = n->resources,
        .wall_offset_s = rs_clock_wall() - (double)rs_clock_now() / 1e9,
        .log_dir = rs_statedir_logs(n->state),
        .omp_set = getenv("OMP_NUM_THREADS") != NULL,
    };

    if (rs_agent_new(&n->agent, &conf, &agent_ops, n, err) < 0)
        return -1;
    n->envs = rs_envs_new(n->loop, &n->launch, n->keeper, n->agent);
    n->advice = rs_advice_new(&(struct rs_helpers_conf){n->loop, n->agent, n->keeper, &n->launch},
                              n->node_id, &advice_ops, n);
    return 0;
}

static int listen_for_peers(struct rs_node *n, const struct rs_address *at, struct rs_error *err)
{
    struct rs_address bound;
    char text[80];

    if (!at)
        return 0;
    if (rs_listener_new(&n->peers, n->loop, at, on_peer, n, err) < 0)
        return -1;
    rs_listener_address(n->peers, &bound);
    rs_address_print(&bound, text, sizeof(text));
    n->address = rs_strdup(text);
    return 0;
}

static void on_owner_gone(void *arg)
{
    struct rs_node *n = arg;

    if (n->ops.on_owner_gone)
        n->ops.on_owner_gone(n->arg);
}

static int take_drivers(struct rs_node *n, const struct rs_node_conf *conf, struct rs_error *err)
{
    const struct rs_drivers_conf drivers = {
        .node_id = n->node_id,
        .values_dir = rs_statedir_values(n->state),
        .run_dir = conf->drivers ? rs_statedir_run(n->state) : NULL,
        .on_owner_gone = on_owner_gone,
        .arg = n,
    };

    n->values = rs_values_new(rs_statedir_values(n->state), &values_ops, n);
    return rs_drivers_new(&n->drivers, n->loop, n->dataplane, &drivers, err);
}

int rs_node_new(struct rs_node **ret, struct rs_loop *loop, const struct rs_node_conf *conf,
                struct rs_metrics *metrics, const struct rs_node_ops *ops, void *arg,
                struct rs_error *err)
{
    rs_auto(rs_node_freep) struct rs_node *n = rs_alloc(sizeof(*n));

    n->loop = loop;
    n->metrics = metrics;
    n->ops = *ops;
    n->arg = arg;
    n->node_id = rs_strdup(conf->node_id);
    n->name = rs_strdup(conf->name);
    n->resources = json_deep_copy(conf->resources);
    n->grace_s = 20;
    n->probes = (struct rs_probes){.loop = loop, .on_probed = on_probed, .arg = n};
    rs_list_init(&n->hook.link);
    if (open_state(n, conf, err) < 0 || start_processes(n, conf, err) < 0 ||
        start_agent(n, err) < 0 ||
        rs_dataplane_new(&n->dataplane, loop, &conf->ingress, metrics, &dataplane_ops, n, err) <
            0 ||
        take_drivers(n, conf, err) < 0 || listen_for_peers(n, conf->peers, err) < 0)
        return -1;
    rs_advice_dataplane(n->advice, n->dataplane);
    n->hook.fn = on_turn;
    rs_after_add(loop, &n->hook);
    *ret = rs_steal(n);
    return 0;
}

void rs_node_free(struct rs_node *n)
{
    if (!n)
        return;
    n->closing = true;
    rs_after_remove(&n->hook);
    rs_listener_free(n->peers);
    rs_drivers_free(n->drivers);
    rs_values_free(n->values);
    rs_conn_free(n->head);
    rs_probes_fini(&n->probes);
    for (size_t i = 0; i < rs_map_slots(&n->zygotes); i++) {
        struct zygote *z = rs_map_at(&n->zygotes, i, NULL);

        if (z)
            zygote_free(z);
    }
    for (size_t i = 0; i < rs_map_slots(&n->lines); i++)
        line_free(rs_map_at(&n->lines, i, NULL));
    rs_map_fini(&n->lines);
    rs_map_fini(&n->zygotes);
    rs_envs_free(n->envs);
    rs_advice_free(n->advice);
    rs_keeper_free(n->keeper);
    rs_dataplane_free(n->dataplane);
    rs_agent_free(n->agent);
    rs_capture_hub_free(n->hub);
    rs_guard_free(n->guard);
    rs_launch_fini(&n->launch);
    rs_statedir_free(n->state);
    json_decref(n->resources);
    free(n->node_id);
    free(n->name);
    free(n->address);
    free(n);
}

int rs_node_owned_by(struct rs_node *n, int fd, struct rs_error *err)
{
    return rs_drivers_own(n->drivers, fd, err);
}

int rs_node_listen(struct rs_node *n, const struct rs_ingress_conf *conf, struct rs_error *err)
{
    return rs_dataplane_listen(n->dataplane, conf, err);
}

uint16_t rs_node_port(const struct rs_node *n)
{
    return rs_dataplane_port(n->dataplane);
}

const char *rs_node_driver_socket(const struct rs_node *n)
{
    return rs_drivers_path(n->drivers);
}

const char *rs_node_values_dir(const struct rs_node *n)
{
    return rs_statedir_values(n->state);
}

const char *rs_node_log_dir(const struct rs_node *n)
{
    return rs_statedir_logs(n->state);
}

void rs_node_drain(struct rs_node *n)
{
    if (n->phase != SERVING)
        return;
    n->phase = FINISHING;
    n->finish_by = rs_clock_now() + (int64_t)(n->grace_s * 1e9);
    rs_dataplane_stop_accepting(n->dataplane);
}

void rs_node_kill(struct rs_node *n)
{
    if (n->phase == DRAINED)
        return;
    n->phase = KILLING;
    rs_helpers_stop(rs_advice_helpers(n->advice));
    rs_agent_kill_all(n->agent, rs_clock_now());
}

unsigned rs_node_ongoing(const struct rs_node *n)
{
    return rs_dataplane_ongoing(n->dataplane);
}

char *rs_node_waits_for(const struct rs_node *n)
{
    unsigned ongoing = rs_node_ongoing(n);

    if (n->phase <= FINISHING && ongoing)
        return rs_asprintf("%u request%s", ongoing, ongoing == 1 ? "" : "s");
    return rs_agent_waits_for(n->agent);
}
