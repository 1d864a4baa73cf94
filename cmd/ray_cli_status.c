/* ray status: the nodes of the cluster, what of their resources is taken, and what waits for more. */
#include "cmd/ray_cli.h"
#include "cmd/remote.h"
#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/json.h"
#include "core/base/text.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

struct status_options {
    const char *address;
};

static const struct rs_option status_options[] = {
    {"address", 0, RS_OPT_STRING, offsetof(struct status_options, address), "ADDRESS",
     "HOST:PORT where nodes join it, or http://HOST:PORT of its REST API (default $RAY_ADDRESS, "
     "$RAY_DASHBOARD_ADDRESS, the newest head of this machine, http://127.0.0.1:8265)"},
    {"verbose", 'v', RS_OPT_IGNORED_FLAG},
    {NULL},
};

static int run_status(int argc, char *argv[], struct rs_error *err);

const struct rs_verb rs_ray_verb_status = {
    .of = "ray",
    .name = "status",
    .args = "",
    .summary = "show the nodes of a cluster and their resources",
    .details = "'rserve status' tells of applications and replicas.",
    .options = status_options,
    .run = run_status,
};

#define RULE "---------------------------------------------------------------\n"

/* "1.0", "7.62GiB" */
static void put_amount(struct rs_buf *out, const char *resource, double amount)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    char text[RS_DOUBLE_TEXT];
    size_t unit = 0;

    if (strcmp(resource, "memory") != 0 && strcmp(resource, "object_store_memory") != 0) {
        rs_buf_puts(out, rs_text_double(amount, text));
        return;
    }
    for (; amount >= 1024 && unit + 1 < RS_COUNT(units); unit++)
        amount /= 1024;
    rs_buf_printf(out, unit ? "%.2f%s" : "%.0f%s", amount, units[unit]);
}

static void put_nodes(struct rs_buf *out, json_t *nodes)
{
    const char *id;
    json_t *n;

    rs_buf_puts(out, "Node status\n" RULE "Active:\n");
    if (json_object_size(nodes) == 0)
        rs_buf_puts(out, " (no active nodes)\n");
    json_object_foreach (nodes, id, n)
        rs_buf_printf(out, " 1 node_%s (%s)%s\n", id, rs_json_str(n, "name", ""),
                      rs_json_bool(n, "draining", false) ? " draining" : "");
    rs_buf_puts(out, "Pending:\n (no pending nodes)\n\n");
}

static void put_usage(struct rs_buf *out, json_t *nodes)
{
    rs_auto(rs_json_decrefp) json_t *total = json_object();
    rs_auto(rs_json_decrefp) json_t *left = json_object();
    const char *id, *name;
    json_t *n, *amount;

    json_object_foreach (nodes, id, n) {
        const json_t *rest = json_object_get(n, "free");

        json_object_foreach (json_object_get(n, "resources"), name, amount) {
            double all = json_number_value(amount);

            json_object_set_new(total, name, json_real(rs_json_num(total, name, 0) + all));
            json_object_set_new(
                left, name,
                json_real(rs_json_num(left, name, 0) +
                          (json_object_size(rest) ? rs_json_num(rest, name, 0) : all)));
        }
    }
    rs_buf_puts(out, "Resources\n" RULE "Total Usage:\n");
    json_object_foreach (total, name, amount) {
        double all = json_number_value(amount);

        rs_buf_puts(out, " ");
        put_amount(out, name, all - rs_json_num(left, name, 0));
        rs_buf_puts(out, "/");
        put_amount(out, name, all);
        rs_buf_printf(out, " %s\n", name);
    }
}

/* Replicas that wait for room. */
static void put_demands(struct rs_buf *out, json_t *applications)
{
    const char *app_name, *name;
    json_t *app, *d;
    bool any = false;

    rs_buf_puts(out, "\nPending Demands:\n");
    json_object_foreach (applications, app_name, app) {
        json_object_foreach (json_object_get(app, "deployments"), name, d) {
            const json_t *more = json_object_get(d, "rserve");
            const char *why = rs_json_str(more, "blocked", "");
            rs_auto(rs_freep) char *wants = rs_json_dump(json_object_get(d, "required_resources"));

            if (!*why)
                continue;
            rs_buf_printf(out, " %s: %lld+ pending replicas of %s in application %s\n   %s\n",
                          wants, (long long)rs_json_int(more, "pending", 1), name, app_name, why);
            any = true;
        }
    }
    if (!any)
        rs_buf_puts(out, " (no resource demands)\n");
}

static int run_status(int argc, char *argv[], struct rs_error *err)
{
    struct status_options o = {0};
    rs_auto(rs_json_decrefp) json_t *details = NULL;
    rs_auto(rs_buf_fini) struct rs_buf out = {0};
    time_t now = time(NULL);
    struct rs_remote remote;
    struct tm local;
    char when[40];
    json_t *nodes;

    if (rs_verb_parse(&rs_ray_verb_status, argc, argv, &o, err) < 0 ||
        rs_remote_find_cluster(&remote, o.address, err) < 0 ||
        rs_remote_details(&remote, &details, err) < 0)
        return -1;
    nodes = json_object_get(json_object_get(details, "rserve"), "nodes");
    strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", localtime_r(&now, &local));
    rs_buf_printf(&out, "======== Cluster status: %s ========\n", when);
    put_nodes(&out, nodes);
    put_usage(&out, nodes);
    put_demands(&out, json_object_get(details, "applications"));
    fwrite(rs_buf_text(&out), 1, rs_buf_len(&out), stdout);
    return 0;
}
