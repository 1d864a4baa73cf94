/* serve start: opens the HTTP listener of a cluster that has none yet. Everything else of Serve runs
 * from the start.
 */
#include "cmd/deployed.h"
#include "cmd/remote.h"
#include "cmd/serve_cli.h"
#include "core/base/json.h"

#include <stdio.h>
#include <string.h>

static const char *const locations[] = {"Disabled", "HeadOnly", "EveryNode", NULL};

struct start_options {
    const char *address, *http_host;
    int64_t http_port, grpc_port;
    int location;
    struct rs_opt_list grpc_functions;
    bool no_reflection;
};

#define AT(field) offsetof(struct start_options, field)
static const struct rs_option start_options[] = {
    {"address", 'a', RS_OPT_STRING, AT(address), "ADDRESS",
     "the cluster (default $RAY_ADDRESS, the newest head of this machine)"},
    {"http-host", 0, RS_OPT_STRING, AT(http_host), "ADDRESS",
     "address of the HTTP listener (default 127.0.0.1)"},
    {"http-port", 0, RS_OPT_INT, AT(http_port), "PORT", "port of the HTTP listener (default 8000)",
     .min = 0, .max = 65535},
    {"proxy-location", 0, RS_OPT_CHOICE, AT(location), "WHERE", "nodes that take HTTP requests",
     .choices = locations},
    {"grpc-port", 0, RS_OPT_INT, AT(grpc_port), "PORT", "goes into grpc_options (default 9000)",
     .min = 0, .max = 65535},
    {"grpc-servicer-functions", 0, RS_OPT_LIST, AT(grpc_functions), "PATH",
     "goes into grpc_options"},
    {"grpc-disable-reflection", 0, RS_OPT_FLAG, AT(no_reflection), NULL,
     "enable_reflection: false in grpc_options"},
    {"grpc-enable-reflection", 0, RS_OPT_IGNORED_FLAG},
    {"http-location", 0, RS_OPT_IGNORED},
    {NULL},
};

static json_t *document(const struct start_options *o)
{
    json_t *functions = json_array();

    for (size_t i = 0; i < o->grpc_functions.count; i++)
        json_array_append_new(functions, json_string(o->grpc_functions.items[i]));
    return json_pack("{s:s, s:{s:s, s:I}, s:{s:I, s:o, s:b}, s:[]}", "proxy_location",
                     locations[o->location], "http_options", "host",
                     o->http_host ? o->http_host : "127.0.0.1", "port",
                     (json_int_t)(o->http_port >= 0 ? o->http_port : 8000), "grpc_options", "port",
                     (json_int_t)o->grpc_port, "grpc_servicer_functions", functions,
                     "enable_reflection", !o->no_reflection, "applications");
}

/* What is open stays as it is. */
static void tell_differences(const struct start_options *o, const json_t *details)
{
    const json_t *http = json_object_get(details, "http_options");
    const char *host = rs_json_str(http, "host", "");
    int64_t port = rs_json_int(http, "port", 0);

    if ((o->http_host && strcmp(o->http_host, host) != 0) ||
        (o->http_port > 0 && o->http_port != port))
        fprintf(stderr,
                "warning: Serve listens on %s:%lld already; its HTTP options do not change while "
                "it runs\n",
                host, (long long)port);
}

static int start(const struct start_options *o, struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *doc = document(o), *details = NULL;
    struct rs_remote remote;

    if (rs_remote_find_cluster(&remote, o->address, err) < 0 ||
        rs_deployed_add(&remote, doc, false, err) < 0 ||
        rs_remote_details(&remote, &details, err) < 0)
        return -1;
    tell_differences(o, details);
    printf("Serve runs on %s\n", remote.base);
    return 0;
}

static int run_start(int argc, char *argv[], struct rs_error *err)
{
    struct start_options o = {.http_port = -1, .grpc_port = 9000, .location = 2};
    int r = rs_verb_parse(&rs_serve_verb_start, argc, argv, &o, err);

    if (r < 0)
        return -1;
    r = start(&o, err);
    rs_options_fini(start_options, &o);
    return r;
}

const struct rs_verb rs_serve_verb_start = {
    .of = "serve",
    .name = "start",
    .args = "",
    .summary = "open the HTTP listener of a cluster before anything is deployed",
    .details = "The first configuration that is deployed does it too, with its http_options.",
    .options = start_options,
    .run = run_start,
};
