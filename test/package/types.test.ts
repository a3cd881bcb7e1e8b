// The package's types in the corners of what users compile them with: the oldest and the newest TypeScript and @types/node,
// every way to resolve modules, type providers, and other plugins that add to Fastify's types. Nothing is left unchecked.

import { cp, mkdtemp, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { npm, pack, runBin, runProgram } from './support.ts'

const APPS = join(__dirname, 'consumers/typed')

interface Corner {
  typescript: string
  /** The major version of @types/node. */
  node: string
  module: 'node16' | 'nodenext' | 'esnext'
  moduleResolution: 'node16' | 'nodenext' | 'bundler'
  apps: string[]
}

const APPS_OF_ALL = ['providers.ts', 'neighbours.ts']

/** In between is package.test.ts, with the TypeScript and the @types/node of this repository. */
const CORNERS: Corner[] = [
  // Without Zod, whose own types are for TypeScript 5.5 and later.
  { typescript: '5.4', node: '20', module: 'node16', moduleResolution: 'node16', apps: [...APPS_OF_ALL, 'required.cts'] },
  { typescript: '7', node: '20', module: 'esnext', moduleResolution: 'bundler', apps: [...APPS_OF_ALL, 'zod.ts'] },
  { typescript: '7', node: '26', module: 'node16', moduleResolution: 'node16', apps: [...APPS_OF_ALL, 'zod.ts', 'required.cts'] },
  { typescript: '7', node: '26', module: 'nodenext', moduleResolution: 'nodenext', apps: [...APPS_OF_ALL, 'zod.ts', 'required.cts'] }
]

/** Why nothing can be installed here; false if something can. */
async function offline (): Promise<string | false> {
  try {
    await npm(['view', 'fastify', 'version', '--prefer-online', '--fetch-retries=0'], tmpdir())
    return false
  } catch (error) {
    return `no package registry: ${/code (\w+)/.exec((error as { stderr: string }).stderr)?.[1] ?? 'npm has failed'}`
  }
}

/** Installs the package and what the apps need. */
async function install (directory: string): Promise<void> {
  await cp(APPS, directory, { recursive: true })
  const { tarball } = await pack(directory)
  await npm(['install', '--no-save', '--no-package-lock', '--ignore-scripts', '--no-audit', '--no-fund', '--prefer-offline', tarball], directory)
}

/** Since version 7 the compiler is a program. Its script is an ES module, which the loader of tap keeps Node 20 from starting. */
async function compile (modules: string, typescript: string, args: string[]): Promise<void> {
  const cwd = join(modules, '..')
  if (typescript !== '7') return runBin(join(modules, `typescript-${typescript}`), 'tsc', args, cwd)
  const program = join(modules, '@typescript', `typescript-${process.platform}-${process.arch}`, 'lib', process.platform === 'win32' ? 'tsc.exe' : 'tsc')
  await runProgram(program, args, cwd)
}

t.test('types', async (t) => {
  const skip = await offline()
  const directory = await mkdtemp(join(tmpdir(), 'fastify-duplex-types-'))
  t.teardown(() => rm(directory, { recursive: true, force: true }))
  if (skip === false) await install(directory)

  const modules = join(directory, 'node_modules')
  for (const { typescript, node, module, moduleResolution, apps } of CORNERS) {
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
