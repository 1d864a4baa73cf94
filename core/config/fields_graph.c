/* Tables of a declared graph. */
#include "core/config/fields.h"

#include <string.h>
#include <strings.h>

#define G "applications[].rserve.graph"

static const char *const merges[] = {"object", "array", "concat", "vote", "mean", "first", NULL};

static bool is_method(const struct rs_node *n, struct rs_buf *why)
{
    size_t len = strlen(n->text);

    if (len && len < 16 && strspn(n->text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") == len &&
        strcmp(n->text, "CONNECT") != 0)
        return true;
    rs_buf_puts(why, "expected an HTTP method such as \"POST\", ");
    rs_node_show(why, n);
    return false;
}

static bool is_path(const struct rs_node *n, struct rs_buf *why)
{
    const char *p = n->text;

    while (*p > ' ' && *p != 0x7f && *p != '#')
        p++;
    if (n->text[0] == '/' && !*p)
        return true;
    rs_buf_puts(why, "expected a path that begins with / and holds no blanks, ");
    rs_node_show(why, n);
    return false;
}

static bool is_token(const char *text)
{
    return *text && text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                      "0123456789!#$%&'*+-.^_`|~")] == '\0';
}

static bool is_header(const struct rs_node *n, struct rs_buf *why)
{
    if (is_token(n->text))
        return true;
    rs_buf_puts(why, "expected the name of a header, ");
    rs_node_show(why, n);
    return false;
}

static bool are_headers(const struct rs_node *n, struct rs_buf *why)
{
    for (size_t i = 0; i < n->count; i++) {
        if (n->items[i]->kind == RS_NODE_TEXT && !is_header(n->items[i], why))
            return false;
    }
    return true;
}

/* Headers that a stage is sent: none that concern the connection or the length of the body. */
static bool are_own_headers(const struct rs_node *n, struct rs_buf *why)
{
    static const char *const ours[] = {"connection", "content-length", "expect",
                                       "host",       "keep-alive",     "proxy-connection",
                                       "te",         "trailer",        "transfer-encoding",
                                       "upgrade",    "x-request-id",   "content-encoding"};

    for (size_t i = 0; i < n->count; i++) {
        const struct rs_node_entry *e = &n->entries[i];
        const char *value = e->value->kind == RS_NODE_TEXT ? e->value->text : "";
        bool bad = !is_token(e->key);

        for (size_t k = 0; k < RS_COUNT(ours) && !bad; k++)
            bad = strcasecmp(e->key, ours[k]) == 0;
        for (; *value && !bad; value++)
            bad = ((unsigned char)*value < ' ' && *value != '\t') || *value == 0x7f;
        if (bad) {
            rs_buf_printf(why, "the header \"%.60s\" cannot be set here", e->key);
            return false;
        }
    }
    return true;
}

static bool are_outcomes(const struct rs_node *n, struct rs_buf *why)
{
    static const char *const known[] = {"error", "timeout", "overload", "refused"};

    for (size_t i = 0; i < n->count; i++) {
        const struct rs_node *item = n->items[i];
        bool found = item->kind != RS_NODE_TEXT;

        for (size_t k = 0; k < RS_COUNT(known) && !found; k++)
            found = strcmp(item->text, known[k]) == 0;
        if (!found) {
            rs_buf_puts(why, "expected \"error\", \"timeout\", \"overload\" or \"refused\", ");
            rs_node_show(why, item);
            return false;
        }
    }
    if (n->count)
        return true;
    rs_buf_puts(why, "expected at least one of \"error\", \"timeout\", \"overload\", \"refused\"");
    return false;
}

static bool is_stage_name(const struct rs_node *n, struct rs_buf *why)
{
    if (*n->text && strlen(n->text) <= 100)
        return true;
    rs_buf_puts(why, "expected a name of 1 to 100 characters, ");
    rs_node_show(why, n);
    return false;
}

static const struct rs_field switch_fields[] = {
    {"header", RS_TYPE_TEXT, .check = is_header,
     .help = "The client's header whose value decides."},
    {"json", RS_TYPE_TEXT,
     .help = "The field of the input, a JSON document, whose value decides: model, or user.tier."},
    {"weight", RS_TYPE_AMOUNTS,
     .help = "Names of steps or deployments and the share of the requests that each gets, above 0. "
             "The same request id gets the same one, on every node."},
    {"sticky", RS_TYPE_TEXT, .check = is_header,
     .help = "With weight: the client's header that decides instead of the request id; where a "
             "request has none, its id does."},
    {"cases", RS_TYPE_STEPS, .object = &rs_object_step,
     .help = "With header or json: a step for each value."},
    {"default", RS_TYPE_STEP, .object = &rs_object_step,
     .help = "For any other value, and where there is none. Without it: 400."},
};
const struct rs_object rs_object_switch =
    RS_OBJECT(G "...switch",
              "Which of several steps. One of header, json and weight. Unknown keys "
              "are errors.",
              switch_fields, true);

static const struct rs_field answer_fields[] = {
    {"status", RS_TYPE_INT, .def = "200", .min = 200, .max = 599,
     .help = "HTTP status; from 400 on it ends the graph."},
    {"text", RS_TYPE_TEXT, .help = "Body of type text/plain."},
    {"json", RS_TYPE_ANY, .help = "Body of type application/json: any value."},
};
const struct rs_object rs_object_answer =
    RS_OBJECT(G "...answer", "A fixed answer. Unknown keys are errors.", answer_fields, true);

static const struct rs_field cache_fields[] = {
    {"ttl_s", RS_TYPE_SECONDS, .flags = RS_F_REQUIRED | RS_F_ABOVE, .max = 1e8,
     .help = "How long an answer is used."},
    {"max_bytes", RS_TYPE_INT, .flags = RS_F_REQUIRED, .min = 65536, .max = 1e9,
     .help = "Memory for the answers of this step, on each node; the least recently used one goes "
             "first. An answer longer than a quarter of it is not kept."},
    {"headers", RS_TYPE_LIST, RS_TYPE_TEXT, .def = "[]", .check = are_headers,
     .help = "Headers of the client that belong to the key, such as authorization where the answer "
             "depends on who asks."},
};
const struct rs_object rs_object_cache = RS_OBJECT(
    G "...cache",
    "Answers 2xx of this step are kept on the node. The key: the input's bytes, the client's "
    "method, "
    "path and query, and `headers`. Equal requests that come while one is at work wait for its "
    "answer. Unknown keys are errors.",
    cache_fields, true);

static const struct rs_field shadow_fields[] = {
    {"to", RS_TYPE_STEP, .flags = RS_F_REQUIRED, .object = &rs_object_step,
     .help = "What gets a copy of this step's input."},
    {"share", RS_TYPE_REAL, .flags = RS_F_ABOVE, .def = "1", .max = 1,
     .help = "Share of the requests, by their id."},
    {"limit", RS_TYPE_INT, .def = "16", .min = 1, .max = 10000,
     .help = "Copies under way on a node; further ones are dropped."},
};
const struct rs_object rs_object_shadow = RS_OBJECT(
    G "...shadow",
    "A mirror without effect on the answer. A copy never waits: where its deployment has no free "
    "slot, or others wait for it, it is dropped. Unknown keys are errors.",
    shadow_fields, true);

static const struct rs_field step_fields[] = {
    {"call", RS_TYPE_TEXT, .help = "A deployment of this application, asked by HTTP."},
    {"path", RS_TYPE_TEXT, .check = is_path,
     .help = "Of a call: below the application's route prefix, as a client would ask, with a query "
             "if there is one. Default: the client's path and query."},
    {"method", RS_TYPE_TEXT, .check = is_method,
     .help = "Of a call. Default: the client's where its body is the input; POST where that is a "
             "stage's answer."},
    {"headers", RS_TYPE_TEXTS, .check = are_own_headers,
     .help = "Of a call: set, in place of the client's of the same name."},
    {"retries", RS_TYPE_INT, .def = "0", .min = 0, .max = 10,
     .help = "Of a call: how often it is made again after error, timeout or overload. Only where "
             "that does no harm; retry_budget bounds all of them."},
    {"sequence", RS_TYPE_LIST, RS_TYPE_STEP, .object = &rs_object_step,
     .help = "One after the other; the answer of each is the input of the next."},
    {"parallel", RS_TYPE_LIST, RS_TYPE_STEP, .object = &rs_object_step,
     .help = "All at once with the same input; see merge."},
    {"merge", RS_TYPE_CHOICE, .choices = merges,
     .help = "Of parallel. object (the default): JSON by the names of the steps. array: JSON in "
             "their order. concat: their bytes in order. vote: the value of `field` that most "
             "gave, as {field, votes, of}; of equals the first. mean: of the numbers in `field`, "
             "as {field, of}. first: the first one that succeeds; the others are cancelled."},
    {"field", RS_TYPE_TEXT,
     .help = "With vote and mean: where in each answer, such as result.label; with vote also "
             "nothing: the whole answer."},
    {"need", RS_TYPE_INT, .min = 1, .max = 256,
     .help = "Of parallel: how many must succeed; the others are left out. Default: all; with vote "
             "more than half; with first 1."},
    {"switch", RS_TYPE_OBJECT, .object = &rs_object_switch, .help = "One of several steps."},
    {"split", RS_TYPE_STEP, .object = &rs_object_step,
     .help = "Once for each element of a JSON array; the answers become an array in that order."},
    {"items", RS_TYPE_TEXT,
     .help = "Of split: the field of the input that holds the array. Default: the input is it."},
    {"parallelism", RS_TYPE_INT, .min = 1, .max = 1000,
     .help = "Of split: elements under way at a time. Default: 8."},
    {"max_items", RS_TYPE_INT, .min = 1, .max = 100000,
     .help = "Of split: more elements are refused with 400. Default: 1000."},
    {"fallback", RS_TYPE_LIST, RS_TYPE_STEP, .object = &rs_object_step,
     .help = "The first one; where that fails the next one with the same input, and so on."},
    {"on", RS_TYPE_LIST, RS_TYPE_TEXT, .check = are_outcomes,
     .help = "Of fallback: what counts as failing. error (it failed, or answered 5xx), timeout, "
             "overload (no room, 429, 503), refused (another 4xx). Default: all but refused."},
    {"answer", RS_TYPE_OBJECT, .object = &rs_object_answer, .help = "A fixed answer."},
    {"name", RS_TYPE_TEXT, .check = is_stage_name,
     .help = "Of the step: in metrics, errors and merges. Default: that of the deployment, or what "
             "the step does."},
    {"timeout_s", RS_TYPE_SECONDS, .flags = RS_F_ABOVE, .max = 1e6,
     .help = "After this the step has failed with a timeout; of a call with retries: each try. An "
             "answer that is passed on as it comes has its time once it began."},
    {"cache", RS_TYPE_OBJECT, .object = &rs_object_cache, .help = "Keeps answers."},
    {"shadow", RS_TYPE_OBJECT, .object = &rs_object_shadow, .help = "Mirrors the input."},
    {"steps", RS_TYPE_STEPS, .object = &rs_object_step,
     .help = "Only at the top: steps by name, to be used in several places."},
    {"max_body", RS_TYPE_INT, .def = "16777216", .min = 1024, .max = 1e9,
     .help =
         "Only at the top: bytes of an answer that is not passed on as it comes; a longer one is "
         "an error of its stage. Also of the client's body: 413."},
    {"max_ongoing_requests", RS_TYPE_INT, .def = "10000", .min = 1, .max = 1e6,
     .help = "Only at the top: requests that the graph works on at a time, on each node; more are "
             "answered 503."},
    {"retry_budget", RS_TYPE_REAL, .def = "0.2", .max = 10,
     .help = "Only at the top: retries per call, on the average; ten can be saved up."},
};
const struct rs_object rs_object_step = RS_OBJECT(
    G,
    "A graph declared in the file, run by the node: it gets the HTTP requests of the application, "
    "and asks the deployments. It is a step. A step is the name of a deployment (or of one of "
    "`steps`), or a mapping with one of call, sequence, parallel, switch, split, fallback and "
    "answer, and options. Unknown keys are errors. docs/graphs.md shows examples.",
    step_fields, true);
