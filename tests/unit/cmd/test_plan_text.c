/* Plans and histories as lines of a terminal. */
#include "cmd/plan_text.h"
#include "core/base/cleanup.h"
#include "core/base/json.h"
#include "core/base/text.h"
#include "tests/unit/check_main.h"

#include <string.h>

static const char plan[] =
    "{'state': 'ready', 'applications': [{'name': 'chat', 'change': 'deployed', 'route_prefix': "
    "'/chat', 'fields': [{'field': 'route_prefix', 'old': null, 'new': '/chat'}], 'error': null, "
    "'note': null, 'deployments': ["
    "{'name': 'A', 'change': 'unchanged', 'fields': [], 'replicas': {'before': 1, 'after': 1}},"
    "{'name': 'B', 'change': 'in place', 'fields': [{'field': 'num_replicas', 'old': 2, 'new': "
    "4}], 'replicas': {'before': 2, 'after': 4}, 'nodes': {'n0': 3, 'n1': 1}},"
    "{'name': 'C', 'change': 'rolling', 'fields': [{'field': 'ray_actor_options.runtime_env', "
    "'old': {'env_vars': {'LONG': 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'}}, "
    "'new': 1}], 'replicas': {'before': 3, 'after': 3, 'live': 3}, 'surge': {'wanted': 1, 'fits': "
    "0, 'how': 'stop_first', 'why': 'n0: needs 1 CPU; node has 4, 0 free'}, 'gap': true},"
    "{'name': 'D', 'change': 'new', 'fields': [], 'replicas': {'before': 0, 'after': 9}, "
    "'pending': {'replicas': 8, 'why': 'n0: needs 9 CPU; node has 4'}},"
    "{'name': 'E', 'change': 'removed', 'fields': [], 'replicas': {'before': 1, 'after': 0, "
    "'stops': 1}}]},"
    "{'name': 'bad', 'change': 'failed', 'route_prefix': null, 'fields': [], 'error': "
    "'Deploying app failed:\\n1\\n2\\n3\\n4\\n5\\n6\\n7\\n8\\n9\\n10\\n11\\n12\\n13\\nlast', "
    "'note': "
    "null, 'deployments': []}],"
    "'summary': {'unchanged': 1, 'in place': 1, 'new': 1, 'rolling': 1, 'removed': 1, 'failed': 1, "
    "'restarts': 3, 'starts': 14, 'stops': 4}, 'fits': false, 'resources': {'now': {'CPU': 4}, "
    "'peak': {'CPU': 13}, 'total': {'CPU': 4}}}";

static const char want[] =
    "\n"
    "application chat  /chat\n"
    "    route_prefix                   null -> \"/chat\"\n"
    "  = A                      unchanged, 1 replica\n"
    "  ~ B                      in place, 2 -> 4 replicas\n"
    "      num_replicas                   2 -> 4\n"
    "      on n0 3, n1 1\n"
    "  ! C                      rolling, 3 replicas, 3 restart, old ones stop first\n"
    "      ray_actor_options.runtime_env  {\"env_vars\":{\"LONG\":\"xxxxxxxxxxxxxx... -> 1\n"
    "      no room beside the old ones: n0: needs 1 CPU; node has 4, 0 free\n"
    "      for a moment none of its replicas serves; requests wait\n"
    "  + D                      new, 9 replicas\n"
    "      8 find no room: n0: needs 9 CPU; node has 4\n"
    "  - E                      removed, 1 replica stops\n"
    "\n"
    "application bad  (no route)  failed\n"
    "    the deploy would fail, and what runs would go on:\n"
    "      Deploying app failed:\n"
    "      1\n"
    "      2\n"
    "      3\n"
    "      4\n"
    "      5\n"
    "      ... (3 lines)\n"
    "      9\n"
    "      10\n"
    "      11\n"
    "      12\n"
    "      13\n"
    "      last\n"
    "\n"
    "Sum: 1 unchanged, 1 in place, 1 new, 1 rolling, 1 removed, 1 failed.\n"
    "Replicas: 14 start, 4 stop, 3 of those that serve restart.\n"
    "CPU        4 of 4 taken, 13 at the peak: more than there is, so it goes slower\n"
    "Not all of it finds room.\n";

/* With ' for ". */
static json_t *parse(const char *text)
{
    rs_auto(rs_freep) char *copy = strdup(text);
    json_t *j;

    for (char *p = copy; *p; p++)
        *p = *p == '\'' ? '"' : *p;
    j = json_loads(copy, 0, NULL);
    ck_assert_ptr_nonnull(j);
    return j;
}

START_TEST(a_plan)
{
    rs_auto(rs_json_decrefp) json_t *j = parse(plan);
    rs_auto(rs_buf_fini) struct rs_buf out = {0};

    rs_deploy_plan_print(j, 80, false, &out);
    ck_assert_str_eq(rs_buf_text(&out), want);
}
END_TEST

START_TEST(no_line_is_too_long)
{
    rs_auto(rs_json_decrefp) json_t *j = parse(plan);
    rs_auto(rs_buf_fini) struct rs_buf out = {0};
    size_t width = (size_t)_i, n;

    rs_deploy_plan_print(j, width, false, &out);
    for (const char *p = rs_buf_text(&out); *p; p += n + (p[n] == '\n')) {
        n = strcspn(p, "\n");
        ck_assert_uint_le(rs_text_width(p, n), width < 60 ? 60 : width);
    }
}
END_TEST

START_TEST(what_is_not_a_plan)
{
    rs_auto(rs_json_decrefp) json_t *j = parse("{'applications': [{}, 7, {'deployments': [{}]}]}");
    rs_auto(rs_buf_fini) struct rs_buf out = {0};

    rs_deploy_plan_print(j, 80, true,
                         &out); /* from another version: no member is taken for granted */
    rs_deploy_plan_print(NULL, 80, true, &out);
    rs_history_print(NULL, 80, &out);
    ck_assert_ptr_nonnull(strstr(rs_buf_text(&out), "nothing to do"));
}
END_TEST

START_TEST(a_history)
{
    rs_auto(rs_json_decrefp) json_t *j = parse(
        "{'name': 'a', 'back_to': 1, 'revisions': [{'revision': 2, 'time_s': 86400, 'who': 'cli', "
        "'rollback_of': 1, 'current': true, 'config': {'import_path': 'm:app'}}, {'revision': 1, "
        "'time_s': 0, 'who': null, 'rollback_of': null, 'current': false, 'config': {}}]}");
    rs_auto(rs_buf_fini) struct rs_buf out = {0};

    rs_history_print(j, 80, &out);
    ck_assert_str_eq(rs_buf_text(&out),
                     "REVISION  RUNS SINCE            BY                CODE\n"
                     "       2  1970-01-02T00:00:00Z  cli               m:app (1 again)  current\n"
                     "       1  1970-01-01T00:00:00Z  -                   <- rollback\n");
}
END_TEST

RS_CHECK_MAIN("plan_text", tcase_add_test(tc, a_plan);
              tcase_add_loop_test(tc, no_line_is_too_long, 40, 121);
              tcase_add_test(tc, what_is_not_a_plan); tcase_add_test(tc, a_history);)
