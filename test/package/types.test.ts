// Compiles apps against the package's types: with the oldest and the newest TypeScript and @types/node, with every module
// resolution, with type providers, and with other plugins that augment Fastify's types. No declaration file is skipped.

import { cp, mkdtemp, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { npm, pack, runBin, runProgram } from './support.ts'

const APPS = join(__dirname, 'consumers/typed')

interface Setup {
  typescript: string
  /** The major version of @types/node. */
  node: string
  module: 'node16' | 'nodenext' | 'esnext'
  moduleResolution: 'node16' | 'nodenext' | 'bundler'
  apps: string[]
}

const COMMON_APPS = ['providers.ts', 'neighbours.ts']

/** package.test.ts covers the TypeScript and the @types/node of this repository, which lie between these. */
const SETUPS: Setup[] = [
  // Without Zod, whose own types need TypeScript 5.5.
  { typescript: '5.4', node: '20', module: 'node16', moduleResolution: 'node16', apps: [...COMMON_APPS, 'required.cts'] },
  { typescript: '7', node: '20', module: 'esnext', moduleResolution: 'bundler', apps: [...COMMON_APPS, 'zod.ts'] },
  { typescript: '7', node: '26', module: 'node16', moduleResolution: 'node16', apps: [...COMMON_APPS, 'zod.ts', 'required.cts'] },
  { typescript: '7', node: '26', module: 'nodenext', moduleResolution: 'nodenext', apps: [...COMMON_APPS, 'zod.ts', 'required.cts'] }
]

/** The reason to skip if no package can be installed, otherwise false. */
async function skipOffline (): Promise<string | false> {
  try {
    await npm(['view', 'fastify', 'version', '--prefer-online', '--fetch-retries=0'], tmpdir())
    return false
  } catch (error) {
    return `no package registry: ${/code (\w+)/.exec((error as { stderr: string }).stderr)?.[1] ?? 'npm failed'}`
  }
}

/** Installs the package and what the apps need. */
async function install (directory: string): Promise<void> {
  await cp(APPS, directory, { recursive: true })
  const { tarball } = await pack(directory)
  await npm(['install', '--no-save', '--no-package-lock', '--ignore-scripts', '--no-audit', '--no-fund', '--prefer-offline', tarball], directory)
}

/** From version 7 on, the compiler is a native program. Its script is an ES module, which does not start on Node 20 under tap's loader. */
async function compile (modules: string, typescript: string, args: string[]): Promise<void> {
  const cwd = join(modules, '..')
  if (typescript !== '7') return runBin(join(modules, `typescript-${typescript}`), 'tsc', args, cwd)
  const program = join(modules, '@typescript', `typescript-${process.platform}-${process.arch}`, 'lib', process.platform === 'win32' ? 'tsc.exe' : 'tsc')
  await runProgram(program, args, cwd)
}

t.test('types', async (t) => {
  const skip = await skipOffline()
  const directory = await mkdtemp(join(tmpdir(), 'fastify-duplex-types-'))
  t.teardown(() => rm(directory, { recursive: true, force: true }))
  if (skip === false) await install(directory)

  const modules = join(directory, 'node_modules')
  for (const { typescript, node, module, moduleResolution, apps } of SETUPS) {
    await t.test(`TypeScript ${typescript}, @types/node ${node}, moduleResolution ${moduleResolution}`, { skip }, async (t) => {
      const types = join(modules, '@types/node')
      await rm(types, { recursive: true, force: true })
      await symlink(join(modules, `types-node-${node}`), types, 'junction')
      await t.resolves(compile(modules, typescript, [
        '--noEmit', '--strict', '--skipLibCheck', 'false', '--target', 'es2022', '--types', 'node', '--module', module, '--moduleResolution', moduleResolution, ...apps
      ]))
    })
  }
})
