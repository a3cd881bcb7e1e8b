// What is written about options and errors, in the README, in docs/ and in the comments of types/ and lib/, is what the code has.

import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { maxHeaderSize } from 'node:http'
import { join } from 'node:path'
import Fastify from 'fastify'
import t from 'tap'
import ts from 'typescript'
import { DEFAULT_AGENT_OPTIONS } from '../../lib/client/agent.ts'
import { DEFAULT_LIMITS } from '../../lib/client/limits.ts'
import * as errors from '../../lib/errors.ts'
import duplex from '../../lib/index.ts'
import { jsonl } from '../../lib/items/index.ts'
import { DEFAULT_OPTIONS, OPTIONS, resolveOptions } from '../../lib/options.ts'
import { PAGES, ROOT, read, rowsIn, sectionIn } from './pages.ts'

// Options

interface Description { unit: string, default: string }

/** What only a route has: what its bodies consist of. */
const isOfRoute = ([, value]: string[]): boolean => value === 'bytes'

function describedInReadme (): Record<string, Description> {
  return Object.fromEntries(rowsIn(sectionIn('README.md', 'Options')).filter((row) => !isOfRoute(row)).map(([name, value, text]) => {
    const unit = / ms$/.test(value) ? 'ms' : / KiB$/.test(value) || /^(maximum )?bytes\b/.test(text) ? 'bytes' : /^(true|false)\b/.test(value) ? 'boolean' : 'exchanges'
    return [name.replaceAll('`', ''), { unit, default: value.replace(/ ms$/, '') }]
  }))
}

const UNITS: Record<string, string> = { Milliseconds: 'ms', Bytes: 'bytes', Exchanges: 'exchanges', Whether: 'boolean' }

/** The comments of the members of an interface. Each has its default at the end. */
function commentsIn (path: string, name: string): Record<string, string> {
  const found: Record<string, string> = {}
  const visit = (node: ts.Node): void => {
    if (!ts.isInterfaceDeclaration(node) || node.name.text !== name) return ts.forEachChild(node, visit)
    for (const member of node.members) {
      found[(member.name as ts.Identifier).text] = ts.getJSDocCommentsAndTags(member).map((doc) => ts.getTextOfJSDocComment(doc.comment)).join(' ').replaceAll(/\s+/g, ' ')
    }
  }
  visit(ts.createSourceFile(path, read(path), ts.ScriptTarget.ES2022, true))
  return found
}

/** The comments of an interface of options: the first word is the unit, and the default is at the end. */
function describedInTypes (path = 'types/index.d.ts', interfaceName = 'FastifyDuplexOptions'): Record<string, Description> {
  return Object.fromEntries(Object.entries(commentsIn(path, interfaceName)).map(([name, comment]) => {
    const match = /^(\w+) .*\bDefault: (.*)$/.exec(comment)
    assert(match, `unit and default in: ${comment}`)
    return [name, { unit: UNITS[match[1]], default: match[2] }]
  }))
}

function toValue (text: string): number | boolean | undefined {
  if (text === 'true' || text === 'false') return text === 'true'
  if (text === 'false, with a warning') return undefined
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

t.test('options: what only a route has is the same in README, types and code', async (t) => {
  const names = rowsIn(sectionIn('README.md', 'Options')).filter(isOfRoute).flatMap(([names]) => names.replaceAll('`', '').split(', '))
  const inTypes = commentsIn('types/index.d.ts', 'RouteFormats')
  t.strictSame(names, Object.keys(inTypes))
  for (const comment of Object.values(inTypes)) t.match(comment, /Default: the body is bytes$/)
  const app = Fastify()
  await app.register(duplex)
  for (const name of names) {
    t.throws(() => resolveOptions({ [name]: jsonl({}) } as object, DEFAULT_OPTIONS), { code: 'FST_ERR_DUPLEX_OPTION' }, `${name} is no option of register()`)
    app.post(`/${name}`, { duplex: { [name]: jsonl({}) } as object }, async () => {})
    t.throws(() => app.post(`/${name}/bad`, { duplex: { [name]: {} } as object }, async () => {}), { code: 'FST_ERR_DUPLEX_OPTION' }, `${name}: a format`)
  }
  await app.close()
})

t.test('options of formats: names and defaults are the same in docs/items.md, types and code', async (t) => {
  const inPage = Object.fromEntries(rowsIn(sectionIn('docs/items.md', 'Options of a format')).map(([name, value]) => [name.replaceAll('`', ''), value.replaceAll('`', '')]))
  const comments = { ...commentsIn('types/items.d.ts', 'ItemOptions'), ...commentsIn('types/items.d.ts', 'SendOptions') }
  const inTypes = Object.fromEntries(Object.entries(comments).map(([name, comment]) => [name, /\bDefault: (.*)$/.exec(comment)?.[1].replaceAll('`', '')]))
  t.strictSame(inPage, inTypes)
  // A name that the code does not have is refused, and the compiler checks that it has those of the types.
  const VALUES = { maxItemSize: 1, invalid: 'item', heartbeat: 1, problem: false } as const
  t.strictSame(Object.keys(inTypes), Object.keys(VALUES))
  t.match(jsonl({}, VALUES).options, VALUES)
  t.strictSame({ ...jsonl({}).options }, { maxItemSize: toBytes(inPage.maxItemSize), invalid: inPage.invalid.replaceAll("'", ''), problem: inPage.problem === 'true' })
  t.equal(inPage.heartbeat, 'none')
  t.throws(() => jsonl({}, { other: 1 } as object), { code: 'FST_ERR_DUPLEX_OPTION' })
})

t.test('options of the client: names and defaults are the same in types and code, and its page has them', async (t) => {
  const section = sectionIn('docs/client-and-proxy.md', 'Client')
  for (const [name, defaults] of [['OpenOptions', DEFAULT_LIMITS], ['AgentOptions', DEFAULT_AGENT_OPTIONS]] as const) {
    const numbers = Object.entries(commentsIn('types/client.d.ts', name)).map(([option, comment]) => [option, /\bDefault: (\d+)/.exec(comment)?.[1]]).filter(([, value]) => value !== undefined)
    t.strictSame(Object.fromEntries(numbers.map(([option, value]) => [option, Number(value)])), { ...defaults }, name)
    for (const [option] of Object.entries(commentsIn('types/client.d.ts', name))) t.ok(section.includes(`\`${option}\``), `${name}: ${option}`)
  }
})

function toBytes (text: string): number {
  const [, digits] = /^(\d+) MiB$/.exec(text) ?? []
  return Number(digits) * 1024 * 1024
}

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
const UNANSWERED = ['OPTION', 'REGISTERED', 'UNSEEN_ROUTE', 'BODY_SCHEMA', 'SYNC_GENERATOR', 'ITEM_SCHEMA', 'FASTIFY', 'INJECT', 'HEAD', 'HEAD_LIMIT', 'RESPONSE', 'ON_SEND', 'ON_SEND_PAYLOAD', 'REPLY_TRAILER', 'RAW_REQUEST', 'READERS'].map((name) => `FST_ERR_DUPLEX_${name}`)

t.test('errors: codes and statuses are the same in docs/errors.md and code', async (t) => {
  t.equal(codes.size, Object.keys(made).length, 'a code for each error')
  const inPage = rowsIn(read('docs/errors.md')).flatMap(([names, status]) => names.split(', ').map((name) => `${name.replaceAll('`', '')} ${status}`))
  const inCode = Object.values(made).map(({ code, statusCode }) => `${code} ${UNANSWERED.includes(code) ? '' : statusCode}`)
  t.strictSame(inPage.sort(), inCode.sort())
})

t.test('errors: no text names a code that does not exist', async (t) => {
  for (const path of [...PAGES, 'types/index.d.ts', 'types/items.d.ts', 'types/transfer.d.ts', 'types/client.d.ts', 'types/proxy.d.ts']) {
    const unknown = [...read(path).matchAll(/FST_ERR_DUPLEX_[A-Z]\w*/g)].map(([code]) => code).filter((code) => !codes.has(code))
    t.strictSame(unknown, [], path)
  }
})

t.test('errors: each @throws in lib/ names the code of its error', async (t) => {
  const paths = readdirSync(join(ROOT, 'lib'), { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith('.ts'))
  const named = paths.flatMap((path) => [...read(join('lib', path)).matchAll(/@throws \{(\w+)\} (\w+)/g)])
  t.ok(named.length > 0)
  for (const [text, name, code] of named) t.equal(made[name]?.code, code, text)
})
