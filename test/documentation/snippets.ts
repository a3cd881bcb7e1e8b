// Runs the snippets of a page.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import type { AddressInfo } from 'node:net'
import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import ts from 'typescript'
import * as client from '../../lib/client/index.ts'
import duplex from '../../lib/index.ts'
import * as items from '../../lib/items/index.ts'
import * as proxy from '../../lib/proxy/index.ts'
import * as transfer from '../../lib/transfer/index.ts'
import { snippetsIn } from './pages.ts'

/** How a snippet begins, and what is tried with it. */
export type SnippetTest = [beginning: string, test: (code: string, t: Test) => Promise<void>, options?: { skip?: false | string }]

/** Tests the snippets of a page. A snippet that has no test fails, and so does a test whose snippet is gone. */
export function testSnippets (page: string, tests: SnippetTest[]): void {
  const snippets = snippetsIn(page).map(({ code }) => code)
  const beginnings = tests.map(([beginning]) => beginning)
  t.strictSame(snippets.filter((code) => !beginnings.some((beginning) => code.startsWith(beginning))), [], `${page}: each snippet has a test`)
  for (const [beginning, test, options = {}] of tests) {
    t.test(`${page}: ${beginning}`, options, async (t) => {
      const [snippet, ...others] = snippets.filter((code) => code.startsWith(beginning))
      assert(snippet !== undefined && others.length === 0, 'one snippet begins so')
      await test(snippet, t)
    })
  }
}

const PACKAGE: Record<string, unknown> = {
  'fastify-duplex': duplex,
  'fastify-duplex/client': client,
  'fastify-duplex/items': items,
  'fastify-duplex/proxy': proxy,
  'fastify-duplex/transfer': transfer,
  // What the log would say is not part of the page.
  fastify: (options: object) => Fastify({ ...options, logger: false })
}

/** What an import statement of a snippet gets. */
export async function load (name: string): Promise<unknown> {
  return PACKAGE[name] ?? import(name)
}

/** Runs a snippet with what it takes for granted; `result` is an expression to return. */
export async function run (code: string, given: object, result = 'undefined'): Promise<any> {
  // The body of an asynchronous function, which has no import statements.
  const withoutImports = code
    .replaceAll(/^import type .*$/gm, '')
    .replaceAll(/^import (?:\* as )?(\w+|{.*}) from '(.*)'$/gm, (_, names: string, name) => `const ${names.replaceAll(/\btype \w+,? ?/g, '').replaceAll(' as ', ': ')} = ${names.startsWith('{') ? '' : 'byDefault'}(await load('${name}'))`)
    .replaceAll(/^declare module .*?^}$/gms, '')
  const { outputText, diagnostics } = ts.transpileModule(`const snippet = async () => {\n${withoutImports}\nreturn ${result} }`, { compilerOptions: { target: ts.ScriptTarget.ES2022 }, reportDiagnostics: true })
  assert.deepEqual(diagnostics, [])
  const all = { load, byDefault: (module: { default?: unknown }) => module.default ?? module, ...given }
  // eslint-disable-next-line no-new-func
  return new Function(...Object.keys(all), `${outputText}\nreturn snippet()`)(...Object.values(all))
}

/** An app with the plugin. */
export async function make (t: Test, options = {}): Promise<FastifyInstance> {
  const app = Fastify(options)
  t.teardown(() => app.close())
  await app.register(duplex)
  return app
}

export async function listen (app: FastifyInstance): Promise<number> {
  await app.listen({ port: 0, host: '127.0.0.1' })
  return (app.server.address() as AddressInfo).port
}

/** Why a test is skipped that needs a program: Windows, for example, has no `cat`. */
export function skipUnless (program: string, ...args: string[]): false | string {
  try {
    execFileSync(program, args, { stdio: 'ignore' })
    return false
  } catch {
    return `${program} is not installed`
  }
}

export const JSON_LINES = { 'content-type': 'application/jsonl' }
