// Runs the suite of one checkout with one Node, and counts the outcomes.

import { delimiter, dirname, join } from 'node:path'
import { Parser, type Result } from 'tap-parser'
import { type Checkout, indent } from './checkout.ts'
import { MINUTE, run } from './commands.ts'
import type { Node } from './nodes.ts'

/** Time limit of the whole suite. Each file also has a limit, in package.json. */
const SUITE_LIMIT = 20 * MINUTE
const JOBS = 2

const DIAGNOSTIC_LINES = 12
const ERROR_LINES = 20

export interface Outcome { passed: number, failed: number, skipped: number, todo: number }

/** Prints the assertions that fail. */
export async function runSuite (node: Node, { directory }: Checkout, files: string[]): Promise<Outcome> {
  const outcome: Outcome = { passed: 0, failed: 0, skipped: 0, todo: 0 }
  const parser = new Parser()
  parser.on('pass', () => { outcome.passed++ })
  parser.on('skip', () => { outcome.skipped++ })
  parser.on('todo', () => { outcome.todo++ })
  parser.on('fail', (result) => {
    outcome.failed++
    console.log(describe(result))
  })
  const tap = join('node_modules', 'tap', 'dist', 'esm', 'run.mjs')
  const { code, printed, timedOut } = await run(node.path, [tap, '--disable-coverage', `--jobs=${JOBS}`, '--reporter=tap', ...files], {
    cwd: directory,
    limit: SUITE_LIMIT,
    // For tests that start `node` themselves.
    env: { ...process.env, PATH: dirname(node.path) + delimiter + process.env.PATH },
    onOutput: (text) => { parser.write(text) }
  })
  parser.end()
  if (timedOut) console.log(`    not finished after ${SUITE_LIMIT / MINUTE} minutes`)
  if (code !== 0 && outcome.failed === 0) {
    outcome.failed++
    console.log(indent(printed, ERROR_LINES))
  }
  return outcome
}

function describe ({ fullname, diag }: Result): string {
  const { at, diff, found, wanted, code, signal, tapError } = diag ?? {}
  const place = at?.fileName === undefined ? '' : ` (${at.fileName}:${at.lineNumber})`
  const details = Object.entries({ diff, ...diff === undefined ? { found, wanted } : {}, code, signal, tapError })
    .filter(([, value]) => value !== undefined && value !== null)
    .map(([key, value]) => typeof value === 'string' ? `${key}: ${value}` : `${key}: ${JSON.stringify(value)}`)
  return [`  FAILED ${fullname}${place}`, indent(details.join('\n'), DIAGNOSTIC_LINES)].join('\n').trimEnd()
}
