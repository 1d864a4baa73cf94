#include "core/config/emit.h"

#include "core/base/json.h"
#include "tests/unit/check_main.h"

#include <string.h>

/* As PyYAML's safe_dump writes these (with Unicode allowed). */
static const struct {
    const char *json, *yaml;
} documents[] = {
    {"{}", "{}\n"},
    {"[]", "[]\n"},
    {"{\"a\": {}, \"b\": [], \"c\": null, \"d\": true, \"e\": false, \"f\": \"\"}",
     "a: {}\nb: []\nc: null\nd: true\ne: false\nf: ''\n"},
    {"{\"z\": 1, \"a\": {\"n\": [1, [2, \"x\"], {\"k\": -3, \"l\": 1}]}}",
     "z: 1\na:\n  n:\n  - 1\n  - - 2\n    - x\n  - k: -3\n    l: 1\n"},
    {"[1763692000.1, 2.0, 0.1, 1e21]", "- 1763692000.1\n- 2.0\n- 0.1\n- 1e+21\n"},
    /* what would read as something else is quoted */
    {"[\"true\", \"1\", \"-1.5\", \"null\", \"~\", \"on\", \"No\", \"017\", \"0x1F\", \"1_000\"]",
     "- 'true'\n- '1'\n- '-1.5'\n- 'null'\n- '~'\n- 'on'\n- 'No'\n- '017'\n- '0x1F'\n- '1_000'\n"},
    {"[\"12:30:45\", \".5\", \"=\", \"<<\", \"2026-11-21\", \"2026-1-2T03:04:05Z\"]",
     "- '12:30:45'\n- '.5'\n- '='\n- '<<'\n- '2026-11-21'\n- '2026-1-2T03:04:05Z'\n"},
    /* what would not is plain */
    {"[\"10.0.0.1\", \"28a5e0\", \"1e5\", \"0o17\", \"a b\", \"a,b\", \"x#y\", \"m:app\", \"/\"]",
     "- 10.0.0.1\n- 28a5e0\n- 1e5\n- 0o17\n- a b\n- a,b\n- x#y\n- m:app\n- /\n"},
    /* what would break the syntax is quoted */
    {"[\"a: b\", \"# c\", \"a #b\", \"it's\", \"'q'\", \"\\\"d\\\"\", \"*a\", \"&b\", \"{x\", \"- "
     "y\"]",
     "- 'a: b'\n- '# c'\n- 'a #b'\n- it's\n- '''q'''\n- '\"d\"'\n- '*a'\n- '&b'\n- '{x'\n- '- "
     "y'\n"},
    {"[\" lead\", \"trail \", \"tab\\there\", \"bell\\u0007\", \"\\u6f22\\u00e9\"]",
     "- ' lead'\n- 'trail '\n- \"tab\\there\"\n- \"bell\\a\"\n- \xe6\xbc\xa2\xc3\xa9\n"},
    {"{\"1\": \"a\", \"yes\": \"b\", \"\": \"c\"}", "'1': a\n'yes': b\n'': c\n"},
    /* several lines */
    {"{\"m\": \"one\\n  two\\n\\nend\"}", "m: |-\n  one\n    two\n\n  end\n"},
    {"{\"m\": \"one\\ntwo\\n\", \"n\": 1}", "m: |\n  one\n  two\nn: 1\n"},
    {"{\"m\": \"one \\ntwo\"}", "m: \"one \\ntwo\"\n"},
    {"[\"a text that is longer than the eighty columns of a line and is folded between two "
     "words\"]",
     "- a text that is longer than the eighty columns of a line and is folded between two\n"
     "  words\n"},
};

START_TEST(writes)
{
    rs_auto(rs_json_decrefp) json_t *value = json_loads(documents[_i].json, 0, NULL);
    rs_auto(rs_buf_fini) struct rs_buf out = {0};

    ck_assert_ptr_nonnull(value);
    rs_yaml_dump(&out, value);
    ck_assert_str_eq(rs_buf_text(&out), documents[_i].yaml);
}
END_TEST

START_TEST(appends)
{
    rs_auto(rs_json_decrefp) json_t *value = json_integer(1);
    rs_auto(rs_buf_fini) struct rs_buf out = {0};

    rs_buf_puts(&out, "# head\n");
    rs_yaml_dump(&out, value);
    ck_assert_str_eq(rs_buf_text(&out), "# head\n1\n");
}
END_TEST

RS_CHECK_MAIN("emit", tcase_add_loop_test(tc, writes, 0, sizeof(documents) / sizeof(documents[0]));
              tcase_add_test(tc, appends);)
