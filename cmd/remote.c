#include "cmd/remote.h"

#include "cmd/running.h"
#include "cmd/verb.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DASHBOARD_PORT "8265"
#define APPLICATIONS "/api/serve/applications/"

static bool says_nothing(const char *text)
{
    return !text || !*text || strcmp(text, "auto") == 0 || strcmp(text, "local") == 0;
}

/* "HOST:8265" or a URL of the REST API. */
static int as_url(const char *text, const char *origin, char *out, size_t size,
                  struct rs_error *err)
{
    bool url = strncmp(text, "http://", 7) == 0;
    size_t n;

    if (!url && strstr(text, "://"))
        return rs_error_set(err, RS_INVALID,
                            "%s: expected the address of the REST API as http://HOST:PORT, got "
                            "'%.200s'",
                            origin, text);
    n = (size_t)snprintf(out, size, "%s%s", url ? "" : "http://", text);
    if (n >= size)
        return rs_error_set(err, RS_INVALID, "%s: the address is too long", origin);
    while (n > 0 && out[n - 1] == '/')
        out[--n] = '\0';
    return 0;
}

/* "0.0.0.0:6379" is at every address of its machine. */
static bool same_place(const char *join, const char *asked)
{
    const char *port = strrchr(asked, ':');

    return strcmp(join, asked) == 0 ||
           (port && strncmp(join, "0.0.0.0:", 8) == 0 && strcmp(join + 7, port) == 0);
}

/* The dashboard of a cluster that is known by the address where nodes join it. */
static void dashboard_of(const char *cluster, char *out, size_t size)
{
    struct rs_running_all all;
    const char *host = strstr(cluster, "://");
    const char *colon;

    host = host ? host + 3 : cluster;
    colon = strrchr(host, ':');
    rs_running_read(&all);
    snprintf(out, size, "http://%.*s:%s", colon ? (int)(colon - host) : (int)strlen(host), host,
             DASHBOARD_PORT);
    for (size_t i = 0; i < all.count; i++)
        if (all.items[i].dashboard[0] && same_place(all.items[i].join, host))
            snprintf(out, size, "http://%s", all.items[i].dashboard);
    rs_running_fini(&all);
}

int rs_remote_find(struct rs_remote *ret, const char *given, struct rs_error *err)
{
    static const char *const variables[] = {"RSERVE_ADDRESS", "RAY_DASHBOARD_ADDRESS"};
    const char *cluster = getenv("RAY_ADDRESS");
    const struct rs_running *head;
    struct rs_running_all all;

    *ret = (struct rs_remote){.by = RS_REMOTE_NAMED};
    if (!says_nothing(given)) {
        snprintf(ret->origin, sizeof(ret->origin), "--address");
        return as_url(given, ret->origin, ret->base, sizeof(ret->base), err);
    }
    for (size_t i = 0; i < RS_COUNT(variables); i++) {
        const char *value = getenv(variables[i]);

        if (says_nothing(value))
            continue;
        snprintf(ret->origin, sizeof(ret->origin), "$%s", variables[i]);
        return as_url(value, ret->origin, ret->base, sizeof(ret->base), err);
    }
    if (!says_nothing(cluster)) {
        snprintf(ret->origin, sizeof(ret->origin), "$RAY_ADDRESS");
        if (strncmp(cluster, "http://", 7) == 0)
            return as_url(cluster, ret->origin, ret->base, sizeof(ret->base), err);
        dashboard_of(cluster, ret->base, sizeof(ret->base));
        return 0;
    }
    rs_running_read(&all);
    head = rs_running_head(&all);
    ret->by = !head                             ? RS_REMOTE_DEFAULT
              : strcmp(head->kind, "head") == 0 ? RS_REMOTE_HEAD
                                                : RS_REMOTE_RUN;
    snprintf(ret->base, sizeof(ret->base), "http://%s",
             head ? head->dashboard : "127.0.0.1:" DASHBOARD_PORT);
    snprintf(ret->origin, sizeof(ret->origin), "%s",
             head ? "the head that runs here" : "the default");
    rs_running_fini(&all);
    return 0;
}

int rs_remote_find_cluster(struct rs_remote *ret, const char *given, struct rs_error *err)
{
    if (says_nothing(given) || (strstr(given, "://") && strncmp(given, "ray://", 6) != 0))
        return rs_remote_find(ret, given, err);
    *ret = (struct rs_remote){.origin = "--address", .by = RS_REMOTE_NAMED};
    dashboard_of(given, ret->base, sizeof(ret->base));
    return 0;
}

/* "rserve/0.1.0 (ann@host)": what events and refusals name. */
static void who(char *out, size_t size)
{
    const char *user = getenv("USER");
    char host[80] = "", number[24];

    (void)gethostname(host, sizeof(host) - 1);
    snprintf(number, sizeof(number), "uid-%u", (unsigned)getuid());
    if (!user || !*user)
        user = getuid() == 0 ? "root" : number;
    snprintf(out, size, "rserve/%s (%.60s@%s)", rs_version(), user, host);
    for (char *p = out; *p; p++)
        if ((unsigned char)*p < ' ' || (unsigned char)*p > '~')
            *p = '?';
}

int rs_remote_call(const struct rs_remote *r, const char *method, const char *path,
                   const char *body, struct rs_http_answer *ret, struct rs_error *err)
{
    char agent[160];
    const struct rs_http_call call = {
        .base = r->base,
        .method = method,
        .path = path,
        .body = body,
        .type = body ? "application/json" : NULL,
        .len = body ? strlen(body) : 0,
        .token = getenv("RSERVE_TOKEN"),
        .agent = agent,
        .if_match = r->if_match[0] && strcmp(method, "PUT") == 0 ? r->if_match : NULL,
        .timeout = 30 * RS_SEC,
    };

    who(agent, sizeof(agent));
    if (rs_http_call(&call, ret, err) == 0)
        return 0;
    if (err->code == RS_NOT_FOUND)
        rs_error_set(err, RS_NOT_FOUND,
                     "nothing answers on %.200s, which is from %s (is rserve running? start it "
                     "with 'ray start --head' or 'rserve run app.yaml', or name its REST API with "
                     "--address)",
                     r->base, r->origin);
    return -1;
}

/* Plain text as Serve's own routes send it, or {"error": ".."}. */
static void refusal_of(struct rs_http_answer *a, struct rs_buf *out)
{
    rs_auto(rs_json_decrefp) json_t *value =
        json_loadb(rs_buf_text(&a->body), rs_buf_len(&a->body), 0, NULL);

    rs_buf_puts(out, rs_json_str(value, "error", rs_buf_text(&a->body)));
}

/* 200, or an error: in one line, after the text if that has several. */
static int expect_200(const struct rs_remote *r, struct rs_http_answer *a, const char *what,
                      struct rs_error *err)
{
    rs_auto(rs_buf_fini) struct rs_buf text = {0};
    const char *line;
    size_t n;

    if (a->status == 200)
        return 0;
    refusal_of(a, &text);
    line = rs_buf_text(&text);
    n = strcspn(line, "\r\n");
    if (line[n + strspn(line + n, "\r\n")])
        fprintf(stderr, "%s\n", line);
    return rs_error_set(err, a->status == 412 ? RS_CONFLICT : RS_SYSTEM,
                        "%s was refused by %.200s with %d: %.*s", what, r->base, a->status,
                        n > 300 ? 300 : (int)n, line);
}

static enum rs_errc code_of(int status)
{
    return status == 400   ? RS_INVALID
           : status == 404 ? RS_NOT_FOUND
           : status == 409 ? RS_CONFLICT
                           : RS_SYSTEM;
}

int rs_remote_ask(const struct rs_remote *r, const char *method, const char *path,
                  const json_t *body, json_t **ret, struct rs_error *err)
{
    rs_auto(rs_http_answer_fini) struct rs_http_answer a = {0};
    rs_auto(rs_freep) char *text = body ? rs_json_dump(body) : NULL;
    rs_auto(rs_buf_fini) struct rs_buf why = {0};

    if (rs_remote_call(r, method, path, text, &a, err) < 0)
        return -1;
    if (a.status == 200)
        return rs_json_parse(ret, rs_buf_text(&a.body), rs_buf_len(&a.body), r->base, err);
    refusal_of(&a, &why);
    return rs_error_set(err, code_of(a.status), "%s (status %d of %.200s)", rs_buf_text(&why),
                        a.status, r->base);
}

static int change(const struct rs_remote *r, const char *method, const char *body, const char *what,
                  struct rs_error *err)
{
    rs_auto(rs_http_answer_fini) struct rs_http_answer answer = {0};

    if (rs_remote_call(r, method, APPLICATIONS, body, &answer, err) < 0)
        return -1;
    return expect_200(r, &answer, what, err);
}

int rs_remote_put(const struct rs_remote *r, const json_t *config, struct rs_error *err)
{
    rs_auto(rs_freep) char *text = rs_json_dump(config);

    return change(r, "PUT", text, "the configuration", err);
}

int rs_remote_put_in_place(const struct rs_remote *r, const json_t *config, struct rs_error *err)
{
    rs_auto(rs_http_answer_fini) struct rs_http_answer answer = {0};
    rs_auto(rs_freep) char *text = rs_json_dump(config);

    if (rs_remote_call(r, "PUT", APPLICATIONS "?no_restart=1", text, &answer, err) < 0)
        return -1;
    if (answer.status == 409) /* it says all there is to say */
        return rs_error_set(err, RS_CONFLICT, "%s", rs_buf_text(&answer.body));
    return expect_200(r, &answer, "the configuration", err);
}

int rs_remote_delete(const struct rs_remote *r, struct rs_error *err)
{
    return change(r, "DELETE", NULL, "the shutdown", err);
}

/* One part of a path. */
void rs_remote_encode(struct rs_buf *out, const char *text)
{
    for (; *text; text++) {
        if (isalnum((unsigned char)*text) || strchr("-._~", *text))
            rs_buf_append(out, text, 1);
        else
            rs_buf_printf(out, "%%%02X", (unsigned char)*text);
    }
}

int rs_remote_delete_app(const struct rs_remote *r, const char *app, struct rs_error *err)
{
    rs_auto(rs_http_answer_fini) struct rs_http_answer answer = {0};
    rs_auto(rs_buf_fini) struct rs_buf path = {0};

    rs_buf_puts(&path, "/api/v1/applications/");
    rs_remote_encode(&path, app);
    if (rs_remote_call(r, "DELETE", rs_buf_text(&path), NULL, &answer, err) < 0)
        return -1;
    return expect_200(r, &answer, "the deletion", err);
}

static int get(const struct rs_remote *r, const char *path, const char *what, char etag[80],
               json_t **ret, struct rs_error *err)
{
    rs_auto(rs_http_answer_fini) struct rs_http_answer answer = {0};

    if (rs_remote_call(r, "GET", path, NULL, &answer, err) < 0 ||
        expect_200(r, &answer, what, err) < 0)
        return -1;
    if (rs_json_parse(ret, rs_buf_text(&answer.body), rs_buf_len(&answer.body), r->base, err) < 0) {
        err->code = RS_SYSTEM; /* not the user's doing */
        return -1;
    }
    snprintf(etag, sizeof(answer.etag), "%s", answer.etag);
    return 0;
}

int rs_remote_get(const struct rs_remote *r, const char *path, const char *what, json_t **ret,
                  struct rs_error *err)
{
    char etag[80];

    return get(r, path, what, etag, ret, err);
}

#define DETAILS APPLICATIONS "?extended=1"
static const char for_details[] = "the question for its applications";

int rs_remote_details(const struct rs_remote *r, json_t **ret, struct rs_error *err)
{
    return rs_remote_get(r, DETAILS, for_details, ret, err);
}

int rs_remote_details_tagged(struct rs_remote *r, json_t **ret, struct rs_error *err)
{
    return get(r, DETAILS, for_details, r->etag, ret, err);
}
