/* Tables of what an application asks of the ingress: limits, priorities, routes. */
#include "core/config/fields_policy.h"

#include "core/base/text.h"
#include "core/model/policy.h"

#include <string.h>

static bool is_rate_key(const struct rs_node *n, struct rs_buf *why)
{
    const char *name;

    if (rs_rate_key_parse(n->text, &name) >= 0)
        return true;
    rs_buf_puts(why, "expected \"client\", \"all\" or \"header:NAME\", ");
    rs_node_show(why, n);
    if (strncmp(n->text, "header", 6) == 0)
        rs_buf_puts(why, "; NAME is the name of a header, such as x-api-key");
    return false;
}

static bool is_route_path(const struct rs_node *n, struct rs_buf *why)
{
    const char *problem = rs_route_prefix_problem(n->text);
    size_t len = strlen(n->text);

    if (!problem && len && n->text[len - 1] == '*')
        problem = "must not contain wildcards";
    if (!problem)
        return true;
    rs_buf_puts(why, "expected a path such as \"/v1\", which stands for all below it too, ");
    rs_node_show(why, n);
    rs_buf_printf(why, ": it %s", problem);
    return false;
}

static bool are_methods(const struct rs_node *n, struct rs_buf *why)
{
    static const char capitals[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ-_";

    if (!n->count) {
        rs_buf_puts(why, "expected at least one method, got none; leave it out for all of them");
        return false;
    }
    for (size_t i = 0; i < n->count; i++) {
        const char *text = n->items[i]->kind == RS_NODE_TEXT ? n->items[i]->text : NULL;

        if (!text) /* it was said */
            continue;
        if (*text && strspn(text, capitals) == strlen(text))
            continue;
        rs_buf_puts(why, "expected methods in capitals such as \"GET\", ");
        rs_node_show(why, n->items[i]);
        return false;
    }
    return true;
}

static const struct rs_field rate_fields[] = {
    {"requests_per_s", RS_TYPE_REAL, .flags = RS_F_REQUIRED | RS_F_ABOVE, .max = RS_RATE_PER_S_MAX,
     .help = "Requests per second in the long run; 0.5 is one in two seconds."},
    {"burst", RS_TYPE_INT, .flags = RS_F_NULL, .min = 1, .max = RS_RATE_BURST_MAX,
     .help = "Requests that may come at once after a pause. Not given: those of one second, at "
             "least 1."},
    {"key", RS_TYPE_TEXT, .def = "\"client\"", .check = is_rate_key,
     .help = "Who shares a limit. client: all from one address (IPv6: one /64 network). "
             "header:NAME: all with the same value of a header; those without it share one. all: "
             "everybody."},
};
const struct rs_object rs_object_rate =
    RS_OBJECT("applications[].rserve.rate_limit",
              "A token bucket per key. In routes too; a route without one of its own shares the "
              "application's.",
              rate_fields, false);

static const struct rs_field route_fields[] = {
    {"path", RS_TYPE_TEXT, .flags = RS_F_REQUIRED, .check = is_route_path,
     .help = "A path inside the application, that is behind its route_prefix, and all below it."},
    {"methods", RS_TYPE_LIST, RS_TYPE_TEXT, .flags = RS_F_NULL, .check = are_methods,
     .help = "Only requests with these; GET stands for HEAD too. Other requests are no errors: the "
             "next route that matches counts. null: all."},
    RS_POLICY_FIELDS,
};
const struct rs_object rs_object_route = RS_OBJECT(
    "applications[].rserve.routes[]",
    "What goes over the application's own for some of its requests: the longest path that matches "
    "counts, among equal ones that with methods. What a route does not say is as in the "
    "application. Changes take effect at once, without new replicas.",
    route_fields, false);
