#include "core/model/policy.h"

#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/json.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const struct rs_route_policy rs_route_policy_default = {
    .path = (char *)(uintptr_t) "/",
    .path_len = 1,
    .max_body = UINT64_MAX,
    .request_timeout = -1,
    .limit = -1,
    .priority = RS_PRIORITY_DEFAULT,
};

int rs_rate_key_parse(const char *text, const char **name)
{
    static const char header[] = "header:";

    *name = NULL;
    if (strcmp(text, "client") == 0)
        return RS_RATE_CLIENT;
    if (strcmp(text, "all") == 0)
        return RS_RATE_ALL;
    if (strncmp(text, header, sizeof(header) - 1) != 0)
        return -1;
    text += sizeof(header) - 1;
    for (const char *p = text; *p; p++) {
        if (!isalnum((unsigned char)*p) && !strchr("!#$%&'*+-.^_`|~", *p))
            return -1;
    }
    if (!*text)
        return -1;
    *name = text;
    return RS_RATE_HEADER;
}

/* --- reading ----------------------------------------------------------------------------------- */

static int bad(struct rs_error *err, const char *key, const char *expected)
{
    return rs_error_set(err, RS_INVALID, "policy: %s: expected %s", key, expected);
}

/* Which route it is; the application's own is read before it has a path. */
static char *name_of(const struct rs_route_policy *r)
{
    struct rs_buf b = {0};

    for (char **m = r->methods; m && *m; m++)
        rs_buf_printf(&b, "%s%s", m == r->methods ? "" : ",", *m);
    rs_buf_printf(&b, "%s%s", r->methods ? " " : "", r->path ? r->path : "");
    return rs_buf_steal(&b);
}

static int read_limit(struct rs_app_policy *p, struct rs_route_policy *r, const json_t *j,
                      struct rs_error *err)
{
    const json_t *burst = json_object_get(j, "burst");
    const char *key = rs_json_str(j, "key", "client"), *name;
    double per_s = rs_json_num(j, "requests_per_s", 0);
    int kind = rs_rate_key_parse(key, &name);
    double most = burst ? json_number_value(burst) : ceil(per_s);
    struct rs_rate_limit *l;

    if (!(per_s > 0) || kind < 0 || (burst && !json_is_integer(burst)))
        return bad(err, "rate_limit", "requests_per_s > 0, a burst and a key");
    p->limits = rs_realloc(p->limits, (p->n_limits + 1) * sizeof(*p->limits));
    l = &p->limits[p->n_limits];
    *l = (struct rs_rate_limit){.requests_per_s = per_s,
                                .burst = (unsigned)fmax(1, fmin(most, RS_RATE_BURST_MAX)),
                                .key = (enum rs_rate_key)kind,
                                .header = rs_strdup(name),
                                .route = name_of(r)};
    for (char *c = l->header; c && *c; c++)
        *c = (char)tolower((unsigned char)*c);
    r->limit = (int)p->n_limits++;
    return 0;
}

static int read_body_and_time(struct rs_route_policy *r, const json_t *j, struct rs_error *err)
{
    const json_t *v = json_object_get(j, "max_body");

    if (json_is_null(v))
        r->max_body = UINT64_MAX;
    else if (v && (!json_is_integer(v) || json_integer_value(v) < 0))
        return bad(err, "max_body", "an integer >= 0");
    else if (v)
        r->max_body = (uint64_t)json_integer_value(v);
    v = json_object_get(j, "request_timeout_s");
    if (json_is_null(v))
        r->request_timeout = 0;
    else if (v && !json_is_number(v))
        return bad(err, "request_timeout_s", "a number");
    else if (v)
        r->request_timeout = (int64_t)(fmin(fmax(json_number_value(v), 0), 1e9) * 1e9);
    return 0;
}

/* Over what is there. */
static int read_values(struct rs_app_policy *p, struct rs_route_policy *r, const json_t *j,
                       struct rs_error *err)
{
    const json_t *v = json_object_get(j, "priority");

    if (read_body_and_time(r, j, err) < 0)
        return -1;
    if (v && (!json_is_integer(v) || json_integer_value(v) < 0 ||
              json_integer_value(v) > RS_PRIORITY_MAX))
        return bad(err, "priority", "an integer from 0 to 9");
    if (v)
        r->priority = (uint8_t)json_integer_value(v);
    v = json_object_get(j, "max_priority");
    if (v && (!json_is_integer(v) || json_integer_value(v) < 0 ||
              json_integer_value(v) > RS_PRIORITY_MAX))
        return bad(err, "max_priority", "an integer from 0 to 9");
    if (v)
        r->max_priority = (uint8_t)json_integer_value(v);
    v = json_object_get(j, "idempotent");
    if (v && !json_is_boolean(v))
        return bad(err, "idempotent", "true or false");
    if (v)
        r->idempotent = json_is_true(v);
    v = json_object_get(j, "rate_limit");
    if (json_is_null(v))
        r->limit = -1;
    else if (v)
        return read_limit(p, r, v, err);
    return 0;
}

static int read_match(struct rs_route_policy *r, const json_t *j, struct rs_error *err)
{
    const json_t *methods = json_object_get(j, "methods");
    const char *path = rs_json_str(j, "path", "");
    size_t n = json_array_size(methods);

    if (*path != '/')
        return bad(err, "path", "a text that begins with \"/\"");
    r->path = rs_strdup(path);
    r->path_len = strlen(path);
    r->methods = NULL;
    if (!methods || json_is_null(methods))
        return 0;
    r->methods = rs_alloc((n + 1) * sizeof(*r->methods));
    for (size_t i = 0; i < n; i++) {
        if (!json_is_string(json_array_get(methods, i)))
            return bad(err, "methods", "a list of texts");
        r->methods[i] = rs_strdup(json_string_value(json_array_get(methods, i)));
    }
    return 0;
}

static bool has(const struct rs_route_policy *r, const char *method)
{
    for (char **m = r->methods; m && *m; m++) {
        if (strcmp(*m, method) == 0)
            return true;
    }
    return false;
}

/* Longest path first; then what has methods, HEAD before GET, which stands for it too. */
static int by_rank(const void *a, const void *b)
{
    const struct rs_route_policy *x = a, *y = b;

    if (x->path_len != y->path_len)
        return x->path_len > y->path_len ? -1 : 1;
    if (!x->methods != !y->methods)
        return x->methods ? -1 : 1;
    if (has(x, "HEAD") != has(y, "HEAD"))
        return has(x, "HEAD") ? -1 : 1;
    return strcmp(x->path, y->path);
}

static int read_routes(struct rs_app_policy *p, const json_t *routes, struct rs_error *err)
{
    struct rs_route_policy own = rs_route_policy_default;
    size_t n = json_array_size(routes);

    if (n > RS_POLICY_ROUTES_MAX)
        return rs_error_set(err, RS_INVALID, "policy: expected at most %d routes, got %zu",
                            RS_POLICY_ROUTES_MAX, n);
    own = p->routes[0];
    p->routes = rs_realloc(p->routes, (n + 1) * sizeof(*p->routes));
    p->n_routes = 0;
    for (size_t i = 0; i < n; i++) {
        struct rs_route_policy *r = &p->routes[p->n_routes];
        const json_t *j = json_array_get(routes, i);

        *r = own;
        r->path = NULL;
        p->n_routes++;
        if (read_match(r, j, err) < 0 || read_values(p, r, j, err) < 0) {
            free(own.path);
            return -1;
        }
    }
    if (n)
        qsort(p->routes, n, sizeof(*p->routes), by_rank);
    p->routes[p->n_routes++] = own;
    return 0;
}

int rs_app_policy_new(struct rs_app_policy **ret, const json_t *j, struct rs_error *err)
{
    rs_auto(rs_app_policy_freep) struct rs_app_policy *p = rs_alloc(sizeof(*p));
    const json_t *routes = json_object_get(j, "routes");

    p->routes = rs_alloc(sizeof(*p->routes));
    p->n_routes = 1;
    p->routes[0] = rs_route_policy_default;
    p->routes[0].path = NULL;
    if (routes && !json_is_array(routes))
        return bad(err, "routes", "a list");
    if (read_values(p, &p->routes[0], j, err) < 0)
        return -1;
    p->routes[0].path = rs_strdup("/");
    if (read_routes(p, routes, err) < 0)
        return -1;
    *ret = rs_steal(p);
    return 0;
}

void rs_app_policy_free(struct rs_app_policy *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->n_routes; i++) {
        for (char **m = p->routes[i].methods; m && *m; m++)
            free(*m);
        free(p->routes[i].methods);
        free(p->routes[i].path);
    }
    for (size_t i = 0; i < p->n_limits; i++) {
        free(p->limits[i].header);
        free(p->limits[i].route);
    }
    free(p->routes);
    free(p->limits);
    free(p);
}

/* --- finding ----------------------------------------------------------------------------------- */

static bool takes(const struct rs_route_policy *r, const char *path, size_t len, const char *method)
{
    if (r->path_len > 1 && (len < r->path_len || memcmp(path, r->path, r->path_len) != 0 ||
                            (len > r->path_len && path[r->path_len] != '/')))
        return false;
    return !r->methods || has(r, method) || (strcmp(method, "HEAD") == 0 && has(r, "GET"));
}

const struct rs_route_policy *rs_app_policy_find(const struct rs_app_policy *p, const char *path,
                                                 size_t len, const char *method)
{
    size_t i = 0;

    while (i + 1 < p->n_routes && !takes(&p->routes[i], path, len, method))
        i++;
    return &p->routes[i];
}
