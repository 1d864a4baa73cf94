/* ray start: a head or a worker, in the background unless --block is given.
 *
 * Where it listens: a node that nobody but this machine can reach listens on the loopback address. What
 * makes it reachable from others: --node-ip-address, a --dashboard-host that is not loopback, or being
 * a pod of Kubernetes; then nodes join and requests come in on every address of it.
 */
#include "cmd/background.h"
#include "cmd/ray_cli.h"
#include "cmd/running.h"
#include "cmd/serve.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "net/wire/resolve.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

enum { READY_S = 60, NAME_S = 10 };

struct start_options {
    struct rs_serve_options serve;
    const char *address, *node_ip, *name, *temp_dir, *http_host;
    int64_t port, http_port, health_port, metrics_port;
    bool head, block, no_http;
};

#define AT(field) offsetof(struct start_options, field)
static const char no_isolation[] =
    "rserve does not put nodes into control groups; let the container limit them";

static const struct rs_option start_options[] = {
    {"head", 0, RS_OPT_FLAG, AT(head), NULL, "start the head of a cluster"},
    {"address", 0, RS_OPT_STRING, AT(address), "HOST:PORT",
     "start a node that joins this head; auto: that of this machine"},
    {"port", 0, RS_OPT_INT, AT(port), "PORT",
     "where nodes join the head (default 6379); 0: a free one", .min = 0, .max = 65535},
    {"block", 0, RS_OPT_FLAG, AT(block), NULL,
     "stay in the foreground until a signal, as a container's first process does"},
    {"node-ip-address", 0, RS_OPT_STRING, AT(node_ip), "IP",
     "address of this machine by which other nodes reach it (default: found out)"},
    {"node-name", 0, RS_OPT_STRING, AT(name), "NAME", "name of this node (default: the host's)"},
    {"http-host", 0, RS_OPT_STRING, AT(http_host), "ADDRESS",
     "address of the HTTP listener (default 127.0.0.1; 0.0.0.0 where other machines reach it)"},
    {"http-port", 0, RS_OPT_INT, AT(http_port), "PORT",
     "port of the HTTP listener; 0: a free one (default: it listens where the first configuration "
     "says)",
     .min = 0, .max = 65535},
    {"no-http", 0, RS_OPT_FLAG, AT(no_http), NULL, "take no HTTP requests on this node"},
    {"dashboard-agent-listen-port", 0, RS_OPT_INT, AT(health_port), "PORT",
     "a port for the probes of containers: GET /api/healthz (default: none)", .min = 0,
     .max = 65535},
    {"metrics-export-port", 0, RS_OPT_INT, AT(metrics_port), "PORT",
     "a port for Prometheus: GET /metrics of this node (default: none; a head has it at its REST "
     "API too)",
     .min = 0, .max = 65535},
    {"temp-dir", 0, RS_OPT_STRING, AT(temp_dir), "DIR", "as --state-dir"},
    RS_SERVE_HEAD_OPTIONS(struct start_options, serve),
    RS_SERVE_NODE_OPTIONS(struct start_options, serve),

    {"object-manager-port", 0, RS_OPT_IGNORED},
    {"node-manager-port", 0, RS_OPT_IGNORED},
    {"min-worker-port", 0, RS_OPT_IGNORED},
    {"max-worker-port", 0, RS_OPT_IGNORED},
    {"worker-port-list", 0, RS_OPT_IGNORED},
    {"ray-client-server-port", 0, RS_OPT_IGNORED},
    {"include-dashboard", 0, RS_OPT_IGNORED},
    {"dashboard-agent-grpc-port", 0, RS_OPT_IGNORED},
    {"dashboard-grpc-port", 0, RS_OPT_IGNORED},
    {"runtime-env-agent-port", 0, RS_OPT_IGNORED},
    {"plasma-directory", 0, RS_OPT_IGNORED},
    {"plasma-store-socket-name", 0, RS_OPT_IGNORED},
    {"raylet-socket-name", 0, RS_OPT_IGNORED},
    {"object-spilling-directory", 0, RS_OPT_IGNORED},
    {"system-config", 0, RS_OPT_IGNORED},
    {"redis-username", 0, RS_OPT_IGNORED},
    {"redis-password", 0, RS_OPT_IGNORED},
    {"redis-shard-ports", 0, RS_OPT_IGNORED},
    {"labels-file", 0, RS_OPT_IGNORED},
    {"include-log-monitor", 0, RS_OPT_IGNORED},
    {"log-style", 0, RS_OPT_IGNORED},
    {"log-color", 0, RS_OPT_IGNORED},
    {"no-monitor", 0, RS_OPT_IGNORED_FLAG},
    {"no-redirect-output", 0, RS_OPT_IGNORED_FLAG},
    {"ray-debugger-external", 0, RS_OPT_IGNORED_FLAG},
    {"disable-usage-stats", 0, RS_OPT_IGNORED_FLAG},
    {"enable-object-reconstruction", 0, RS_OPT_IGNORED_FLAG},
    {"autoscaling-config", 0, RS_OPT_REFUSED, 0, NULL,
     "rserve does not start machines; the nodes of a cluster are started by others"},
    {"enable-resource-isolation", 0, RS_OPT_REFUSED, 0, NULL, no_isolation},
    {"system-reserved-cpu", 0, RS_OPT_REFUSED, 0, NULL, no_isolation},
    {"system-reserved-memory", 0, RS_OPT_REFUSED, 0, NULL, no_isolation},
    {"cgroup-path", 0, RS_OPT_REFUSED, 0, NULL, no_isolation},
    {"proxy-server-url", 0, RS_OPT_REFUSED, 0, NULL, "rserve has no dashboard behind a proxy"},
    {"storage", 0, RS_OPT_REFUSED, 0, NULL, "rserve has no workflows"},
    {"tracing-startup-hook", 0, RS_OPT_REFUSED, 0, NULL, "rserve starts no Python of its own"},
    {NULL},
};

static int run_start(int argc, char *argv[], struct rs_error *err);

const struct rs_verb rs_ray_verb_start = {
    .of = "ray",
    .name = "start",
    .args = "",
    .summary = "start a head, or a node that joins one",
    .details =
        "Comes back when the node serves; 'ray stop' ends it. A node listens on the loopback "
        "address, unless --node-ip-address, a --dashboard-host that is not loopback or "
        "Kubernetes says that others reach it.\n"
        "Links between nodes are not encrypted yet: keep them on addresses that only trusted "
        "machines reach.",
    .options = start_options,
    .run = run_start,
};

/* --- where --------------------------------------------------------------------------------------- */

/* All that rs_serve borrows. */
struct start {
    struct start_options o;
    char ip[80]; /* of this machine, as others reach it */
    char join[100], peer[100], head[300], head_ip[100];
    bool exposed; /* others are to reach it */
    struct rs_serve_conf conf;
    struct rs_background background;
};

static bool is_loopback(const char *host)
{
    return strcmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 ||
           strcmp(host, "::1") == 0;
}

static void with_port(char *out, size_t size, const char *host, int64_t port)
{
    bool v6 = strchr(host, ':') != NULL;

    snprintf(out, size, "%s%s%s:%lld", v6 ? "[" : "", host, v6 ? "]" : "", (long long)port);
}

/* The first IPv4 address that is not loopback, of an interface that is up. */
static bool first_address(char *out, size_t size)
{
    struct ifaddrs *all = NULL;
    bool found = false;

    if (getifaddrs(&all) < 0)
        return false;
    for (const struct ifaddrs *i = all; i && !found; i = i->ifa_next) {
        struct sockaddr_in v4;

        if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET || !(i->ifa_flags & IFF_UP) ||
            (i->ifa_flags & IFF_LOOPBACK))
            continue;
        memcpy(&v4, i->ifa_addr, sizeof(v4));
        found = inet_ntop(AF_INET, &v4.sin_addr, out, (socklen_t)size) != NULL;
    }
    freeifaddrs(all);
    return found;
}

/* The address of this machine from which it reaches `to`: nothing is sent. */
static bool address_towards(const struct rs_address *to, char *out, size_t size)
{
    struct rs_address own = {.len = sizeof(own.sa)};
    rs_auto(rs_closep) int fd = socket(to->sa.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    char text[100], *colon;

    if (fd < 0 || connect(fd, (const struct sockaddr *)&to->sa, to->len) < 0 ||
        getsockname(fd, (struct sockaddr *)&own.sa, &own.len) < 0)
        return false;
    rs_address_print(&own, text, sizeof(text));
    colon = strrchr(text, ':');
    *colon = '\0';
    snprintf(out, size, "%.*s", (int)(strcspn(text, "]") - (text[0] == '[')),
             text + (text[0] == '['));
    return true;
}

static void choose_head(struct start *s)
{
    const struct start_options *o = &s->o;

    s->exposed = (o->node_ip && !is_loopback(o->node_ip)) ||
                 !is_loopback(o->serve.dashboard_host) || getenv("KUBERNETES_SERVICE_HOST");
    if (o->node_ip)
        snprintf(s->ip, sizeof(s->ip), "%s", o->node_ip);
    else if (!s->exposed || !first_address(s->ip, sizeof(s->ip)))
        snprintf(s->ip, sizeof(s->ip), "127.0.0.1");
    with_port(s->join, sizeof(s->join), s->exposed && !o->node_ip ? "0.0.0.0" : s->ip, o->port);
    s->conf.kind = "head";
    s->conf.join = s->join;
}

static int head_of_this_machine(char *out, size_t size, struct rs_error *err)
{
    const struct rs_running *head;
    struct rs_running_all all;
    int r = 0;

    rs_running_read(&all);
    head = rs_running_head(&all);
    if (head && head->join[0])
        snprintf(out, size, "%s", head->join);
    else
        r = rs_error_set(err, RS_NOT_FOUND,
                         "--address auto: no head of this user runs on this machine; start one "
                         "with 'ray start --head'");
    rs_running_fini(&all);
    return r;
}

/* The name of a head that is just being started may not be known yet. */
static int find_head(const char *text, struct rs_address *ret, struct rs_error *err)
{
    int64_t until = rs_clock_now() + READY_S * RS_SEC;
    int r;

    while ((r = rs_address_resolve(text, 6379, NAME_S * RS_SEC, ret, err)) < 0 &&
           err->code != RS_INVALID && rs_clock_now() < until)
        poll(NULL, 0, 1000);
    return r;
}

static int choose_worker(struct start *s, struct rs_error *err)
{
    const struct start_options *o = &s->o;
    struct rs_address head;

    if (strcmp(o->address, "auto") != 0)
        snprintf(s->head, sizeof(s->head), "%s", o->address);
    else if (head_of_this_machine(s->head, sizeof(s->head), err) < 0)
        return -1;
    if (find_head(s->head, &head, err) < 0)
        return rs_error_wrap(err, "--address");
    rs_address_print(&head, s->head_ip, sizeof(s->head_ip));
    if (o->node_ip)
        snprintf(s->ip, sizeof(s->ip), "%s", o->node_ip);
    else if (!address_towards(&head, s->ip, sizeof(s->ip)))
        return rs_error_set(err, RS_NOT_FOUND, "this machine has no way to %.200s", s->head);
    s->exposed = !is_loopback(s->ip);
    s->conf.kind = "worker";
    s->conf.head = s->head;
    return 0;
}

/* On the machine of the head there is a node that takes HTTP already. */
static bool beside_its_head(const struct start *s)
{
    size_t n = strlen(s->ip);

    return s->conf.head && strncmp(s->head_ip, s->ip, n) == 0 && s->head_ip[n] == ':';
}

static int choose(struct start *s, struct rs_error *err)
{
    struct start_options *o = &s->o;

    if (o->head == (o->address != NULL))
        return rs_error_set(err, RS_INVALID,
                            o->head ? "--head and --address exclude each other"
                                    : "expected --head to start the head of a cluster, or "
                                      "--address HOST:PORT of one to join");
    if (o->temp_dir && !o->serve.state_dir)
        o->serve.state_dir = o->temp_dir;
    if (o->head)
        choose_head(s);
    else if (choose_worker(s, err) < 0)
        return -1;
    with_port(s->peer, sizeof(s->peer), s->ip, 0);
    o->serve.host = o->http_host ? o->http_host : s->exposed ? "0.0.0.0" : "127.0.0.1";
    o->serve.port = o->http_port >= 0 ? o->http_port : 8000;
    s->conf.side_host = s->exposed ? "0.0.0.0" : "127.0.0.1";
    s->conf.health_port = o->health_port;
    s->conf.metrics_port = o->metrics_port;
    s->conf.options = &o->serve;
    s->conf.peer = s->peer;
    s->conf.name = o->name;
    s->conf.http = !o->no_http && (o->http_port >= 0 || o->http_host);
    if (!o->no_http && !s->conf.http && !beside_its_head(s))
        s->conf.later_http_host = o->serve.host; /* as Ray: when Serve is started */
    s->conf.arg = s;
    return 0;
}

/* A head of this user that has the port already: said before anything is started. */
static int refuse_second(const struct start *s, struct rs_error *err)
{
    const char *port = strrchr(s->join, ':');
    struct rs_running_all all;
    int r = 0;

    rs_running_read(&all);
    for (size_t i = 0; i < all.count && r == 0; i++) {
        const struct rs_running *one = &all.items[i];
        const char *its = strrchr(one->join, ':');

        if (s->conf.join && its && strcmp(its, port) == 0 && strcmp(port, ":0") != 0)
            r = rs_error_set(err, RS_CONFLICT,
                             "a head runs at %s already (pid %d): end it with 'ray stop', or start "
                             "another with --port, --dashboard-port and --http-port of its own",
                             one->join, (int)one->pid);
    }
    rs_running_fini(&all);
    return r;
}

/* --- what people are told ------------------------------------------------------------------------ */

static json_t *facts(const struct start *s, const struct rs_serve_ready *at)
{
    const char *port = strrchr(at->join, ':');
    char join[100] = "";

    if (port)
        with_port(join, sizeof(join), s->ip, strtol(port + 1, NULL, 10));
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:s, s:b}", "ip", s->ip, "join", join,
                     "head", s->head, "dashboard", at->dashboard, "http", at->http, "log_dir",
                     at->log_dir, "pid", (int)getpid(), "log", s->background.log, "later_http",
                     s->conf.later_http_host != NULL);
}

static void print_started(const json_t *said, bool block)
{
    const char *join = rs_json_str(said, "join", ""), *http = rs_json_str(said, "http", "");

    printf("Local node IP: %s\n\n", rs_json_str(said, "ip", ""));
    puts("--------------------\nRay runtime started.\n--------------------\n");
    if (*join) {
        printf("Next steps\n"
               "  To add another node to this cluster, run\n"
               "    ray start --address='%s'\n\n"
               "  To deploy applications, run\n"
               "    serve deploy app.yaml\n\n",
               join);
        printf("  REST API:  http://%s\n", rs_json_str(said, "dashboard", ""));
    } else {
        printf("  Joined:    %s\n", rs_json_str(said, "head", ""));
    }
    printf("  HTTP:      %s%s\n",
           *http                                     ? "http://"
           : rs_json_bool(said, "later_http", false) ? "as the first configuration says"
                                                     : "none on this node",
           http);
    printf("  Logs:      %s\n\n", rs_json_str(said, "log_dir", ""));
    puts("  To terminate it, run\n    ray stop\n\n"
         "  To view the status of the cluster, use\n    ray status\n");
    if (block)
        puts("--block\n  This command stays until a signal ends it.\n");
    else
        printf("  Process %lld, which writes to %s\n", (long long)rs_json_int(said, "pid", 0),
               rs_json_str(said, "log", ""));
    fflush(stdout);
}

static int on_ready(const struct rs_serve_ready *at, void *arg)
{
    struct start *s = arg;
    rs_auto(rs_json_decrefp) json_t *said = facts(s, at);

    if (s->o.block) {
        if (!s->o.serve.quiet)
            print_started(said, true);
        return 0;
    }
    return rs_background_ready(&s->background, said);
}

/* --- life ---------------------------------------------------------------------------------------- */

static int serve(struct start *s, struct rs_error *err)
{
    int r;

    s->conf.on_ready = on_ready;
    s->conf.background = !s->o.block;
    r = rs_serve(&s->conf, err);
    if (r < 0 && !s->o.block)
        rs_background_failed(&s->background, err);
    return r;
}

static int start_in_background(struct start *s, struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *said = NULL;
    int r = rs_background_start(&s->background, s->conf.kind, READY_S * RS_SEC, &said, err);

    if (r == 1)
        return serve(s, err);
    if (r == 0)
        print_started(said, false);
    else if (err->code == RS_TIMEOUT && s->conf.head)
        return rs_error_set(err, RS_TIMEOUT,
                            "could not join the head at %s within %d seconds; is it there, and "
                            "does a firewall let this machine through?",
                            s->head, READY_S);
    return r;
}

static int run_start(int argc, char *argv[], struct rs_error *err)
{
    struct start s = {
        .o = {.serve = RS_SERVE_DEFAULTS, .port = 6379, .http_port = -1},
    };
    int r = rs_verb_parse(&rs_ray_verb_start, argc, argv, &s.o, err);

    if (r < 0)
        return -1;
    if (choose(&s, err) < 0 || refuse_second(&s, err) < 0)
        r = -1;
    else
        r = s.o.block ? serve(&s, err) : start_in_background(&s, err);
    rs_options_fini(start_options, &s.o);
    return r;
}
