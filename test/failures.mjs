// What remains of TAP where nobody watches the tests run: failures in full, and what tap says at the end.

/**
 * @param {AsyncIterable<string> | Iterable<string>} lines of TAP
 * @returns {AsyncGenerator<string>} the lines to print
 */
export async function * failures (lines) {
  let isFailure = false // the last test point
  let isDetail = false // inside the details of a test point, which are YAML
  for await (const line of lines) {
    if (isDetail) {
      if (isFailure) yield line
      isDetail = !/^ *\.\.\.$/.test(line)
    } else if (/^ *(not )?ok\b/.test(line)) {
      isFailure = /^ *not ok\b(?!.*# (todo|skip)\b)/i.test(line)
      if (isFailure) yield line
    } else if (/^ *---$/.test(line)) {
      isDetail = true
      if (isFailure) yield line
    } else if (/^(?! |# Subtest|TAP version|1\.\.\d+$)./.test(line)) {
      yield line
    }
  }
}
