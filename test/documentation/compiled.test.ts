// The snippets of all pages against the types of the package: those in TypeScript as a strict app compiles them, those in
// JavaScript without what only TypeScript asks for.

import { join } from 'node:path'
import t from 'tap'
import ts from 'typescript'
import { PAGES, ROOT, snippetsIn } from './pages.ts'

/** What snippets take for granted. A snippet may declare the same name itself. */
const GIVEN = `
import type { FastifyInstance } from 'fastify'
declare global {
  const app: FastifyInstance
  const assert: typeof import('node:assert/strict')
  const once: typeof import('node:events').once
  const net: typeof import('node:net')
  const pipeline: typeof import('node:stream/promises').pipeline
  const spawn: typeof import('node:child_process').spawn
  const sleep: typeof import('node:timers/promises').setTimeout
  const swagger: typeof import('@fastify/swagger').default
  const jsonl: typeof import('fastify-duplex/items').jsonl
  const wss: import('ws').WebSocketServer
  const upstream: string
  const upperCase: () => import('node:stream').Transform
  const authorization: string
  const ca: string
  const signal: AbortSignal
  const row: object
  const result: object
  const Row: object
  const Result: object
  const insert: (rows: unknown[]) => Promise<void>
  const log: (error: Error) => void
  const path: string
  const prompt: object
  const token: object
  const sse: typeof import('fastify-duplex/items').sse
  const model: (text: string, options: object) => AsyncIterable<string>
  const handler: (request: unknown, reply: unknown) => Promise<void>
  const serve: (socket: import('node:net').Socket) => Promise<void>
}`

/** In JavaScript, the types of items and parameters are not known. */
const GIVEN_IN_JS = GIVEN
  .replace('import type { FastifyInstance }', 'import type { FastifyBaseLogger, FastifyInstance, FastifyTypeProvider, RawReplyDefaultExpression, RawRequestDefaultExpression, RawServerDefault }')
  .replace('const app: FastifyInstance', 'const app: FastifyInstance<RawServerDefault, RawRequestDefaultExpression, RawReplyDefaultExpression, FastifyBaseLogger, Untyped>')
  .replace('declare global', 'interface Untyped extends FastifyTypeProvider { validator: any, serializer: any }\ndeclare global') + '\n'

for (const [language, given, strict] of [['ts', GIVEN, true], ['js', GIVEN_IN_JS, false]] as const) {
  t.test(`snippets in ${language}`, async (t) => {
    const files = new Map([[join(ROOT, `given-${language}.mts`), given]])
    for (const page of PAGES) {
      for (const [index, snippet] of snippetsIn(page).entries()) {
        // `export` makes a module of it, so that the snippets do not see each other.
        if (snippet.language === language) files.set(join(ROOT, `${page}.${index}.mts`), `${snippet.code}\nexport {}\n`)
      }
    }
    const options: ts.CompilerOptions = {
      target: ts.ScriptTarget.ES2022,
      module: ts.ModuleKind.Node16,
      moduleResolution: ts.ModuleResolutionKind.Node16,
      lib: ['lib.es2022.d.ts'],
      types: ['node'],
      skipLibCheck: true,
      noEmit: true,
      strict
    }
    const host = ts.createCompilerHost(options)
    const { fileExists, getSourceFile, readFile } = host
    host.fileExists = (path) => files.has(path) || fileExists(path)
    host.readFile = (path) => files.get(path) ?? readFile(path)
    host.getSourceFile = (path, target, ...others) => files.has(path) ? ts.createSourceFile(path, files.get(path)!, target) : getSourceFile(path, target, ...others)
    const found = ts.getPreEmitDiagnostics(ts.createProgram([...files.keys()], options, host))
    t.equal(ts.formatDiagnostics(found, { getCurrentDirectory: () => ROOT, getCanonicalFileName: (path) => path, getNewLine: () => '\n' }), '')
  })
}
