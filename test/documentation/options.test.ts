// What is written about options and errors, in the README and in the comments of types/ and lib/, is what the code has.

import assert from 'node:assert/strict'
import { readFileSync, readdirSync } from 'node:fs'
import { maxHeaderSize } from 'node:http'
import { join } from 'node:path'
import t from 'tap'
import ts from 'typescript'
import * as errors from '../../lib/errors.ts'
import { DEFAULT_OPTIONS, OPTIONS, resolveOptions } from '../../lib/options.ts'

const ROOT = join(__dirname, '../..')
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8')
const readme = read('README.md')

/** The cells of the table in a section of the README, without its head. */
function tableIn (heading: string): string[][] {
  const section = readme.split(/^## /m).find((text) => text.startsWith(`${heading}\n`))
  assert(section)
  return [...section.matchAll(/^\|(.*)\|$/gm)].slice(2).map(([, row]) => row.split('|').map((cell) => cell.trim()))
}

// Options

interface Description { unit: string, default: string }

function describedInReadme (): Record<string, Description> {
  return Object.fromEntries(tableIn('Options').map(([name, value, text]) => {
    const unit = / ms$/.test(value) ? 'ms' : / KiB$/.test(value) || /^(maximum )?bytes\b/.test(text) ? 'bytes' : value === 'true' ? 'boolean' : 'exchanges'
    return [name.replaceAll('`', ''), { unit, default: value.replace(/ ms$/, '') }]
  }))
}

const UNITS: Record<string, string> = { Milliseconds: 'ms', Bytes: 'bytes', Exchanges: 'exchanges', Whether: 'boolean' }

/** The comments of FastifyDuplexOptions: the first word is the unit, and the default is at the end. */
function describedInTypes (): Record<string, Description> {
  const found: Record<string, Description> = {}
  const visit = (node: ts.Node): void => {
    if (!ts.isInterfaceDeclaration(node) || node.name.text !== 'FastifyDuplexOptions') return ts.forEachChild(node, visit)
    for (const member of node.members) {
      const comment = ts.getJSDocCommentsAndTags(member).map((doc) => ts.getTextOfJSDocComment(doc.comment)).join(' ').replaceAll(/\s+/g, ' ')
      const match = /^(\w+) .*\bDefault: (.*)$/.exec(comment)
      assert(match, `unit and default in: ${comment}`)
      found[(member.name as ts.Identifier).text] = { unit: UNITS[match[1]], default: match[2] }
    }
  }
  visit(ts.createSourceFile('index.d.ts', read('types/index.d.ts'), ts.ScriptTarget.ES2022, true))
  return found
}

function toValue (text: string): number | boolean | undefined {
  if (text === 'true') return true
  const [, digits, kibi] = /^(\d[\d ]*?)( KiB)?$/.exec(text) ?? []
  if (digits !== undefined) return Number(digits.replaceAll(' ', '')) * (kibi === undefined ? 1 : 1024)
  if (/^(.* else )?none$/.test(text)) return Infinity
  if (text === '`http.maxHeaderSize`') return maxHeaderSize
  assert.equal(text, "Node's", 'a default that this test understands')
  return undefined
}

t.test('options: names, units and defaults are the same in README, types and code', async (t) => {
  const inTypes = describedInTypes()
  t.strictSame(describedInReadme(), inTypes)
  const values = Object.entries(inTypes).map(([name, { unit, default: text }]) => [name, { unit, default: toValue(text) }])
  const inCode = Object.entries(OPTIONS).map(([name, option]) => [name, { unit: option.unit, default: option.default }])
  t.strictSame(Object.fromEntries(values), Object.fromEntries(inCode))
  t.strictSame(Object.entries(resolveOptions({}, DEFAULT_OPTIONS)), Object.entries(OPTIONS).map(([name, option]) => [name, option.default]))
})

t.test('options: only whole numbers in their range, or booleans', async (t) => {
  for (const [name, { unit, min }] of Object.entries(OPTIONS)) {
    if (min === undefined) {
      t.match(resolveOptions({ [name]: false }, DEFAULT_OPTIONS), { [name]: false })
      for (const value of [0, 1, 'false', null]) t.throws(() => resolveOptions({ [name]: value }, DEFAULT_OPTIONS), { code: 'FST_ERR_DUPLEX_OPTION' })
      continue
    }
    const max = unit === 'ms' ? 2 ** 31 - 1 : Number.MAX_SAFE_INTEGER
    for (const value of [min, max]) t.match(resolveOptions({ [name]: value }, DEFAULT_OPTIONS), { [name]: value })
    for (const value of [min - 1, max + 1, min + 0.5, NaN, Infinity, '5', null]) {
      t.throws(() => resolveOptions({ [name]: value }, DEFAULT_OPTIONS), { code: 'FST_ERR_DUPLEX_OPTION' }, `${name}: ${value}`)
    }
  }
  for (const name of ['other', 'constructor', '__proto__']) {
    t.throws(() => resolveOptions({ [name]: 5 }, DEFAULT_OPTIONS), { code: 'FST_ERR_DUPLEX_OPTION', message: /no such option/ }, name)
  }
})

// Errors

type ErrorClass = new () => Error & { code: string, statusCode?: number }
const made = Object.fromEntries(Object.entries(errors).map(([name, DuplexError]) => [name, new (DuplexError as ErrorClass)()]))
const codes = new Set<string>(Object.values(made).map(({ code }) => code))

/** No client is answered with these: they occur at registration, or in app.injectDuplex(). */
const UNANSWERED = ['OPTION', 'REGISTERED', 'UNSEEN_ROUTE', 'BODY_SCHEMA', 'FASTIFY', 'INJECT', 'HEAD', 'HEAD_LIMIT', 'RESPONSE'].map((name) => `FST_ERR_DUPLEX_${name}`)

t.test('errors: codes and statuses are the same in README and code', async (t) => {
  t.equal(codes.size, Object.keys(made).length, 'a code for each error')
  const inReadme = tableIn('Errors').flatMap(([names, status]) => names.split(', ').map((name) => `${name.replaceAll('`', '')} ${status}`))
  const inCode = Object.values(made).map(({ code, statusCode }) => `${code} ${UNANSWERED.includes(code) ? '' : statusCode}`)
  t.strictSame(inReadme.sort(), inCode.sort())
})

t.test('errors: no text names a code that does not exist', async (t) => {
  for (const path of ['README.md', 'types/index.d.ts']) {
    const unknown = read(path).match(/FST_ERR_DUPLEX_[A-Z]\w*/g)!.filter((code) => !codes.has(code))
    t.strictSame(unknown, [], path)
  }
})

t.test('errors: each @throws in lib/ names the code of its error', async (t) => {
  const paths = readdirSync(join(ROOT, 'lib'), { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith('.ts'))
  const named = paths.flatMap((path) => [...read(join('lib', path)).matchAll(/@throws \{(\w+)\} (\w+)/g)])
  t.ok(named.length > 0)
  for (const [text, name, code] of named) t.equal(made[name]?.code, code, text)
})
