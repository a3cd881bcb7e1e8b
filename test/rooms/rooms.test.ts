// The rooms of lib/: arrows between them run one way, no file is in a circle (types included), and only `node/` and
// `fastify/internals.ts` name what is inside Node and Fastify.

import { readFileSync, readdirSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'
import { ESLint } from 'eslint'
import t from 'tap'
import ts from 'typescript'

const ROOT = resolve(__dirname, '../..')

/** Each room may use those further down. The rooms of one line do not know each other. */
const ROOMS = [
  ['index.ts', 'proxy'],
  ['fastify', 'client'],
  ['exchange'],
  ['transport'],
  ['handoff'],
  ['relay'],
  ['node'],
  ['transfer', 'items', 'options.ts'],
  ['errors.ts'],
  ['types']
]

const files = readdirSync(join(ROOT, 'lib'), { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts')).map((name) => join(ROOT, 'lib', name))
const { options } = ts.parseJsonConfigFileContent(ts.readConfigFile(join(ROOT, 'tsconfig.json'), ts.sys.readFile).config, ts.sys, ROOT)

/** The files of this project that a file imports, for values or types. */
function importsOf (file: string): string[] {
  return ts.preProcessFile(readFileSync(file, 'utf8')).importedFiles
    .map(({ fileName }) => ts.resolveModuleName(fileName, file, options, ts.sys).resolvedModule?.resolvedFileName)
    .filter((imported) => imported !== undefined && !imported.includes('node_modules'))
    .map((imported) => resolve(imported!))
}

/** lib/exchange/registry.ts is in `exchange`, lib/index.ts in `index.ts`. */
function roomOf (file: string): string {
  const path = relative(ROOT, file).split('/')
  return path[0] === 'lib' ? path[1] : path[0]
}

t.test('arrows run downwards', async (t) => {
  const level = (room: string): number => ROOMS.findIndex((rooms) => rooms.includes(room))
  let arrows = 0
  for (const file of files) {
    const room = roomOf(file)
    t.not(level(room), -1, `${room} is a room`)
    for (const imported of importsOf(file)) {
      if (roomOf(imported) === room) continue
      arrows++
      t.ok(level(roomOf(imported)) > level(room), `${relative(ROOT, file)} uses ${relative(ROOT, imported)}`)
    }
  }
  t.ok(arrows > 100, 'arrows were found')
})

t.test('no circle', async (t) => {
  const done = new Set<string>()
  const path: string[] = []
  const visit = (file: string): void => {
    if (done.has(file)) return
    if (path.includes(file)) {
      t.fail([...path.slice(path.indexOf(file)), file].map((one) => relative(ROOT, one)).join(' -> '))
      return
    }
    path.push(file)
    importsOf(file).forEach(visit)
    path.pop()
    done.add(file)
  }
  files.forEach(visit)
  t.ok(files.every((file) => done.has(file)))
})

t.test('a file above 300 lines says at its top why it is one thing', async (t) => {
  for (const file of files) {
    const lines = readFileSync(file, 'utf8').split('\n')
    const top = lines.slice(0, lines.findIndex((line) => !line.startsWith('//'))).join(' ')
    t.ok(lines.length <= 301 || /\bOne (class|pass|file)\b/i.test(top), `${relative(ROOT, file)}: ${lines.length} lines`)
  }
})

t.test('names from inside Node and Fastify', async (t) => {
  const eslint = new ESLint({ cwd: ROOT })
  const isAllowed = async (code: string, path: string): Promise<boolean> => {
    const [{ messages }] = await eslint.lintText(`${code}\n`, { filePath: join(ROOT, path) })
    return !messages.some(({ ruleId }) => ruleId === 'no-restricted-syntax')
  }
  const node = ['socket._handle', 'response._httpMessage', 'parser.onIncoming = a', 'parser[kOnExecute]', 'find("bound socketOnData")', 'Object.getOwnPropertySymbols(socket)']
  const fastify = ['get(request, "fastify.context")', 'request._lightMyRequest', 'Object.getOwnPropertySymbols(app)']
  for (const code of [...node, ...fastify]) {
    for (const room of ['exchange', 'transport', 'handoff', 'fastify']) t.notOk(await isAllowed(code, `lib/${room}/one.ts`), `${code} in ${room}/`)
  }
  for (const code of node) t.ok(await isAllowed(code, 'lib/node/socket.ts'), `${code} in node/`)
  for (const code of fastify) t.ok(await isAllowed(code, 'lib/fastify/internals.ts'), `${code} in fastify/internals.ts`)
  for (const code of ['stream._write(a)', 'setTimeout(a)']) t.ok(await isAllowed(code, 'lib/exchange/one.ts'), code)
  for (const code of ['setTimeout(a)', 'setImmediate(a)', 'process.nextTick(a)']) {
    for (const room of ['transfer', 'items']) t.notOk(await isAllowed(code, `lib/${room}/one.ts`), `${code} in ${room}/`)
  }
})
