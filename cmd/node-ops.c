/* The agent's ops: each a few lines that translate names and call supervise or the data plane. */
#include "cmd/node-internal.h"

#include "core/config/deployment.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

/* --- the agent's ops: zygotes -------------------------------------------------------------------- */

void rs_node_zygote_free(struct rs_node_zygote *z)
{
    rs_conn_free(z->conn);
    free(z->key);
    free(z->app);
    free(z);
}

static void on_zygote_frame(struct rs_conn *c, struct rs_frame *f, void *arg)
{
    struct rs_node_zygote *z = arg;
    struct rs_node *n = z->node;
    rs_auto(rs_json_decrefp) json_t *msg = NULL;
    rs_auto(rs_freep) char *key = rs_strdup(z->key); /* the zygote may go meanwhile */
    const char *replica_id;
    struct rs_error err = {0};
    pid_t pid;

    (void)c;
    if (rs_frame_json(f, &msg, &err) < 0) {
        rs_agent_zygote_gone(n->agent, key, err.msg, rs_node_now(n));
        return;
    }
    replica_id = rs_json_str(msg, "replica_id", NULL);
    switch (f->h.type) {
    case RS_MSG_HELLO:
        rs_agent_zygote_hello(n->agent, key, msg, rs_node_now(n));
        break;
    case RS_MSG_GRAPH:
        if (strcmp(rs_json_str(msg, "start", "fork"), "fork") != 0)
            rs_log_info("replicas start as fresh interpreters", "application=%s reason=\"%s\"",
                        z->app, rs_json_str(msg, "start_reason", ""));
        rs_agent_zygote_graph(n->agent, key, msg, rs_node_now(n));
        break;
    case RS_MSG_FORKED:
        pid = (pid_t)rs_json_int(msg, "pid", 0);
        if (replica_id && rs_keeper_adopt(n->keeper, replica_id, pid, &err) < 0) {
            rs_log_warn("cannot watch a forked replica", "replica=%s pid=%d error=\"%s\"",
                        replica_id, (int)pid, err.msg);
            rs_keeper_forget(n->keeper, replica_id);
            rs_agent_exited(n->agent, replica_id, 0, err.msg, rs_node_now(n));
            break;
        }
        rs_agent_zygote_forked(n->agent, key, msg, rs_node_now(n));
        break;
    case RS_MSG_FAILED:
        if (replica_id) {
            rs_keeper_forget(n->keeper, replica_id);
            (void)rs_helpers_exited(rs_advice_helpers(n->advice), replica_id, 0, "");
        }
        rs_agent_zygote_failed(n->agent, key, msg, rs_node_now(n));
        break;
    default:
        rs_error_set(&err, RS_INVALID, "unexpected %s from a zygote", rs_msg_name(f->h.type));
        rs_agent_zygote_gone(n->agent, key, err.msg, rs_node_now(n));
        break;
    }
}

static void on_zygote_close(struct rs_conn *c, const struct rs_error *why, void *arg)
{
    struct rs_node_zygote *z = arg;
    rs_auto(rs_freep) char *key = rs_strdup(z->key);

    rs_conn_free(c);
    z->conn = NULL;
    rs_agent_zygote_gone(z->node->agent, key, why->msg, rs_node_now(z->node));
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
    struct rs_node_zygote *z;
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
        rs_node_zygote_free(z);
        return -1;
    }
    z->conn = conn;
    z = rs_map_put(&n->zygotes, conf->key, z);
    if (z)
        rs_node_zygote_free(z);
    return 0;
}

void rs_node_build(const char *key, const json_t *build, void *arg)
{
    struct rs_node *n = arg;
    struct rs_node_zygote *z = rs_map_get(&n->zygotes, key);

    if (z && z->conn)
        rs_conn_send_json(z->conn, RS_MSG_BUILD, 0, build);
}

static void zygote_build(const char *key, const json_t *build, void *arg)
{
    struct rs_node *n = arg;

    if (!n->head || !rs_values_hold(n->values, key, build))
        rs_node_build(key, build, n);
}

static void zygote_stop(const char *key, void *arg)
{
    struct rs_node *n = arg;
    struct rs_node_zygote *z = rs_map_get(&n->zygotes, key);
    rs_auto(rs_json_decrefp) json_t *nothing = json_object();

    if (z && z->conn)
        rs_conn_send_json(z->conn, RS_MSG_STOP, 0, nothing);
}

/* --- the agent's ops: replicas ------------------------------------------------------------------- */

void rs_node_line_free(struct rs_node_line *l)
{
    if (!l)
        return;
    rs_timer_stop(&l->late);
    free(l->replica_id);
    free(l->output);
    free(l);
}

static struct rs_node_line *line_take(struct rs_node *n, const char *replica_id)
{
    if (n->metrics)
        rs_metrics_unreport(n->metrics, replica_id);
    return rs_map_remove(&n->lines, replica_id);
}

/* The connection is gone, or is waited for no longer. */
void rs_node_line_down(struct rs_node *n, const char *replica_id)
{
    struct rs_node_line *l = line_take(n, replica_id);

    if (l && l->ended)
        rs_agent_exited(n->agent, l->replica_id, l->status, l->output, rs_node_now(n));
    rs_node_line_free(l);
}

static int on_late(struct rs_timer *t)
{
    struct rs_node_line *l = rs_container_of(t, struct rs_node_line, late);
    rs_auto(rs_freep) char *id = rs_strdup(l->replica_id);

    rs_node_line_down(l->node, id);
    return 0;
}

static void line_up(struct rs_node *n, const struct rs_agent_start *s, int fd)
{
    struct rs_node_line *l = rs_alloc(sizeof(*l));

    l->node = n;
    l->replica_id = rs_strdup(s->replica_id);
    l->late.fn = on_late;
    rs_node_line_free(rs_map_put(&n->lines, s->replica_id, l));
    rs_dataplane_attach(n->dataplane, s->app, s->deployment, s->version, s->replica_id, fd);
}

static char *label_of(const struct rs_agent_start *s)
{
    return rs_asprintf("%s#%s#%s", s->app, s->deployment, s->replica_id);
}

static int do_fork(const struct rs_agent_start *s, void *arg, struct rs_error *err)
{
    struct rs_node *n = arg;
    struct rs_node_zygote *z = rs_map_get(&n->zygotes, s->zygote);
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
        rs_dataplane_attach_http(n->dataplane, s->app, s->deployment, s->version, s->replica_id,
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

static void do_detach(const char *replica_id, const char *why, void *arg)
{
    struct rs_node *n = arg;

    rs_node_line_free(line_take(n, replica_id));
    rs_advice_forget(n->advice, replica_id);
    rs_dataplane_detach(n->dataplane, replica_id, why);
    rs_launch_forget(&n->launch, replica_id);
}

static void do_remote(const char *app, const char *deployment, const char *version,
                      const char *node_id, const char *address, unsigned slots, void *arg)
{
    struct rs_node *n = arg;

    rs_dataplane_remote(n->dataplane, app, deployment, version, node_id, address, slots);
}

/* How long a router of the user's may take: RSERVE_ROUTER_TIMEOUT_S. A reference; NULL: no router. */
static json_t *router_conf(const json_t *router)
{
    const char *text = getenv("RSERVE_ROUTER_TIMEOUT_S");
    double seconds = text ? strtod(text, NULL) : 0;
    json_t *conf;

    if (!router || !(seconds > 0))
        return json_incref((json_t *)(uintptr_t)router);
    conf = json_copy((json_t *)(uintptr_t)router);
    json_object_set_new(conf, RS_ROUTER_PATIENCE, json_real(seconds));
    return conf;
}

static void do_routes(const struct rs_agent_routes *r, void *arg)
{
    struct rs_node *n = arg;
    struct rs_route_app *apps = rs_alloc((r->n_apps + 1) * sizeof(*apps));
    struct rs_route_deployment *deployments =
        rs_alloc((r->n_deployments + 1) * sizeof(*deployments));

    for (size_t i = 0; i < r->n_apps; i++)
        apps[i] = (struct rs_route_app){r->apps[i].name, r->apps[i].prefix, r->apps[i].ingress,
                                        r->apps[i].policy, r->apps[i].graph};
    for (size_t i = 0; i < r->n_deployments; i++) {
        const struct rs_agent_route_deployment *d = &r->deployments[i];

        deployments[i] = (struct rs_route_deployment){
            .app = d->app,
            .name = d->name,
            .max_ongoing = d->max_ongoing,
            .max_queued = d->max_queued,
            .backpressure_status = d->backpressure_status,
            .retry_after_s = d->retry_after_s,
            .priority_ageing = d->priority_ageing,
            .shed_target = d->shed_target,
            .shed_interval = d->shed_interval,
            .request_timeout = d->request_timeout,
            .router = router_conf(d->router),
            .fresh = d->fresh,
            .fresh_share = d->fresh_share,
            .by_value = d->by_value,
            .failed = d->failed,
            .scales = d->scales,
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
    for (size_t i = 0; i < r->n_deployments; i++)
        json_decref((json_t *)(uintptr_t)deployments[i].router);
    free(apps);
    free(deployments);
}

/* --- the agent's ops: probes, the head ----------------------------------------------------------- */

void rs_node_on_probed(const char *replica_id, bool ok, const char *why, void *arg)
{
    struct rs_node *n = arg;

    rs_agent_probed(n->agent, replica_id, ok, why, rs_node_now(n));
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
    rs_auto(rs_json_decrefp) json_t *failed = NULL;
    struct rs_error err = {0};

    if (!n->head ||
        rs_conn_offer_json(n->head, ok ? RS_MSG_GRAPH : RS_MSG_FAILED, 0, answer, &err) == 0)
        return;
    failed = json_pack("{s:s, s:s, s:s, s:s}", "app", rs_json_str(answer, "app", ""), "version",
                       rs_json_str(answer, "version", ""), "phase", "build", "error", err.msg);
    rs_conn_send_json(n->head, RS_MSG_FAILED, 0, failed);
}

static void do_changed(void *arg)
{
    struct rs_node *n = arg;

    n->dirty = true;
}

uint64_t rs_node_random(void *arg)
{
    uint64_t value = 0;

    (void)arg;
    while (getrandom(&value, sizeof(value), 0) != sizeof(value))
        ;
    return value;
}

const struct rs_agent_ops rs_node_agent_ops = {
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
    .weigh = rs_node_weigh,
    .look = rs_node_look,
    .oom = rs_node_oom,
    .probe = do_probe,
    .built = do_built,
    .changed = do_changed,
    .random = rs_node_random,
};
